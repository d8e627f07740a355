"""Does something as another user of this machine: a forked child that gives its rights away. Needs root."""

import os
import sys
from collections.abc import Callable

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a moment")


def as_stranger(act: Callable[[], bytes], uid: int = NOBODY) -> bytes:
    """What `act` returns when it runs as nobody, or as `uid` in nobody's group; or the text of its exception."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(uid, uid, uid)
            os.write(write, act())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said
