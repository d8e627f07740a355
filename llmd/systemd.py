"""What systemd and a daemon tell each other: the sockets that it hands over, and how the service is doing.

Without systemd every word of this goes nowhere. What is read from the environment is taken out of it: it is meant for
this process alone, not for a key's command that it may start.
"""

import logging
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import anyio

log = logging.getLogger("llmd.daemon")

FIRST_DESCRIPTOR = 3
STATUS_INTERVAL_S = 1.0
EXTENSION_S = 10
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


class Handed(NamedTuple):
    """A descriptor that was handed over, close-on-exec; `listener` is None where it is no listening stream socket."""

    name: str
    listener: socket.socket | None


class Manager:
    """The service manager that has started this process, if one has.

    handed      what it listens on for us
    watchdog_s  how long it waits for a sign of life before it kills us; None: for ever
    """

    def __init__(self, env: MutableMapping[str, str]) -> None:
        self.handed = _handed(env)
        self.watchdog_s = _watchdog_s(env)
        address = env.pop("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte that begins a name of Linux's abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """Calls are answered; after `reloading`, with the new configuration or still with the old."""
        self._say(READY=1)

    def reloading(self) -> None:
        self._say(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def stopping(self) -> None:
        self._say(STOPPING=1)

    async def keep_informed(self, in_flight: Callable[[], int], draining: Callable[[], bool]) -> None:
        """Tell how many calls are in flight, and while they drain that they may take a while longer."""
        told = None
        while self._address:
            calls = in_flight()
            status = f"{'draining, ' if draining() else ''}{calls} call{'' if calls == 1 else 's'} in flight"
            if status != told:
                self._say(STATUS=status)
                told = status
            if draining():
                self._say(EXTEND_TIMEOUT_USEC=EXTENSION_S * 1_000_000)
            await anyio.sleep(STATUS_INTERVAL_S)

    async def keep_alive(self, is_well: Callable[[], Awaitable[bool]]) -> None:
        """Show signs of life in good time, each after a check that all is well, be it a slow one."""
        if not self._address or self.watchdog_s is None:
            return
        while True:
            began, well = anyio.current_time(), False
            with anyio.move_on_after(self.watchdog_s / 2):
                well = await is_well()
            if well:
                self._say(WATCHDOG=1)
            else:
                log.error("a ping on the daemon's own socket has no answer")
            await anyio.sleep_until(began + self.watchdog_s / 3)

    def _say(self, **words: object) -> None:
        if not self._address:
            return
        message = "\n".join(f"{name}={value}" for name, value in words.items())
        # It may have gone, or not listen: nobody is there to be told.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(message.encode(), socket.MSG_DONTWAIT, self._address)


async def answers(path: Path) -> bool:
    """Whether a ping on this socket is answered; that nobody can connect is no sign that the loop hangs."""
    try:
        async with await anyio.connect_unix(path) as stream:
            await stream.send(PING)
            await stream.receive()
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        log.warning("cannot ping the daemon's own socket: %s", type(error).__name__)
    return True


def _is_ours(env: MutableMapping[str, str], name: str) -> bool:
    """Whether the pid that stands there, if any, is this process: else the words are meant for a parent of ours."""
    return env.pop(name, str(os.getpid())) == str(os.getpid())


def _watchdog_s(env: MutableMapping[str, str]) -> float | None:
    given, ours = env.pop("WATCHDOG_USEC", ""), _is_ours(env, "WATCHDOG_PID")
    return int(given) / 1_000_000 if ours and given.isdecimal() and int(given) else None


def _handed(env: MutableMapping[str, str]) -> list[Handed]:
    count, names = env.pop("LISTEN_FDS", ""), env.pop("LISTEN_FDNAMES", "").split(":")
    if env.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for number in range(int(count)):
        descriptor = FIRST_DESCRIPTOR + number
        os.set_inheritable(descriptor, False)
        name = names[number] if number < len(names) else ""
        found.append(Handed(name, _listener(descriptor)))
    return found


def _listener(descriptor: int) -> socket.socket | None:
    """The socket that this descriptor is, if it is one that listens for streams."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return None
    found = socket.socket(fileno=descriptor)
    if found.type != socket.SOCK_STREAM or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        found.detach()
        return None
    found.setblocking(False)
    return found
