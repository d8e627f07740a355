"""What a daemon asks of its process: descriptors, and an interpreter that has loaded what it will need."""

import gc
import logging
import resource
from contextlib import suppress

import anyio.to_thread

DESCRIPTORS = 65_536

log = logging.getLogger("llmd.daemon")


def raise_descriptor_limit() -> None:
    """A connection takes a descriptor and so does an upstream call: the shell's habit is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def warm_up() -> None:
    """Load what carries HTTP behind the first calls' back.

    What is loaded by then stays as long as the daemon, so the collector need not look at it again; and a call makes a
    thousand objects that reference counts free, which is no reason to look for cycles. That is 8 % of an execute's CPU.
    """
    try:
        await anyio.to_thread.run_sync(__import__, "llmd.providers")
    except (OSError, ImportError) as error:  # no descriptor is free, say: the first call that needs it will load it
        log.warning("what carries HTTP is not loaded yet: %s", type(error).__name__)
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
