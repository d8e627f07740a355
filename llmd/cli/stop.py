"""Stop the running daemon, and wait until it has ended: calls in flight may finish, new ones are refused.

One that calls or systemd start is started again by the next call.
"""

import argparse
import os
import signal
import sys
from contextlib import suppress

from llmd import fingerprint, paths
from llmd.cli.call import NO_DAEMON, RESULT, RPC_ERROR, add_socket, complain, guarded
from llmd.cli.status import is_asleep
from llmd.client import ConnectionLost, Wire


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_socket(parser)


def run(options: argparse.Namespace) -> int:
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    sockets = paths.client_sockets(os.environ, options.socket)
    if is_asleep(sockets[0]):
        return complain(NO_DAEMON, f"systemd listens on {sockets[0]}, and no daemon runs")
    with Wire(sockets) as wire:
        # It listens, so its lock is held, and what stands in it is of nobody who has long ended.
        held = fingerprint.read(fingerprint.lock_file(wire.path))
        if held is None:
            return complain(RPC_ERROR, f"nothing tells which process listens on {wire.path}")
        try:
            os.kill(held.pid, signal.SIGTERM)
        except OSError as error:
            return complain(RPC_ERROR, f"cannot stop the daemon, pid {held.pid}: {error.strerror}")
        with suppress(ConnectionLost):
            while True:
                wire.receive()
    print("stopped")
    sys.stdout.flush()
    return RESULT
