"""Waiting for the end of a process that is not ours to wait for."""

import os

import anyio


async def ended(pid: int) -> None:
    """Return once the process is over, even if nobody has collected it yet."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)
