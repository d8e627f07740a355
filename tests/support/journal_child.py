"""A process that has a store, for tests that kill it or take something from it.

It reads what to do, a line each, and answers with a line: `open PATH DURABILITY`; `write N SIZE`, the batch of that
number; `run`, batches from 1 on, each told when it is acknowledged; `count`; `room BYTES`, how large a file may get;
`deny CALLS`, system calls that fail from now on with EIO; `close`.
"""

import ctypes
import platform
import resource
import sys
from itertools import count
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

from llmd.journal import DurabilityLost, StoreTaken, StoreUnavailable, WriteFailed
from llmd.journal.sqlite import SqliteJournal
from tests.support.journals import numbered, opened

CALLS = {
    "x86_64": {"seccomp": 317, "fsync": 74, "fdatasync": 75, "pwrite64": 18, "write": 1},
    "aarch64": {"seccomp": 277, "fsync": 82, "fdatasync": 83, "pwrite64": 68, "write": 64},
}
"""Numbers of system calls, by machine."""

EIO = 5
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
ALL_THREADS = 1
ALLOW = 0x7FFF0000
FAIL = 0x00050000


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint)]


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def deny(names: list[str]) -> None:
    """The kernel refuses these calls, in all threads, until the process ends. What a broken disk looks like."""
    numbers = CALLS[platform.machine()]
    load, equal, answer = 0x20, 0x15, 0x06
    code = [_Instruction(load, 0, 0, 0)]
    for name in names:
        code += [_Instruction(equal, 0, 1, numbers[name]), _Instruction(answer, 0, 0, FAIL | EIO)]
    code.append(_Instruction(answer, 0, 0, ALLOW))
    program = _Filter(len(code), (_Instruction * len(code))(*code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    done = libc.syscall(numbers["seccomp"], SECCOMP_SET_MODE_FILTER, ALL_THREADS, ctypes.byref(program))
    assert done == 0, ctypes.get_errno()


def say(line: object) -> None:
    print(line, flush=True)


async def _write(journal: SqliteJournal, number: int, size: int) -> str:
    try:
        await journal.write(numbered(number, size))
    except (WriteFailed, DurabilityLost) as error:
        return f"{type(error).__name__} {error}"
    return "written"


async def main() -> None:
    journal: SqliteJournal | None = None
    while line := await run_sync(sys.stdin.readline):
        match line.split():
            case ["open", path, durability]:
                try:
                    journal = opened(Path(path), durability)
                    say("opened")
                except StoreTaken as taken:
                    say(f"taken {taken}")
                except StoreUnavailable as unavailable:
                    say(f"unavailable {unavailable}")
            case ["write", number, size] if journal:
                say(await _write(journal, int(number), int(size)))
            case ["count"] if journal:
                try:
                    say((await journal.row("count") or b"0").decode())
                except DurabilityLost as error:
                    say(f"DurabilityLost {error}")
            case ["run"] if journal:
                for number in count(1):
                    assert await _write(journal, number, 10) == "written"
                    say(number)
            case ["room", size]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
                say("limited")
            case ["deny", *names]:
                deny(names)
                say("denied")
            case ["close"] if journal:
                await journal.aclose()
                say("closed")
            case unknown:
                say(f"what is {unknown}?")


if __name__ == "__main__":
    anyio.run(main, backend_options={"use_uvloop": True})
