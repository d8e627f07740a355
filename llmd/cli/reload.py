"""Have the running daemon read its configuration again.

Calls in flight go on. A configuration that is wrong changes nothing, and the problems are printed.
"""

import argparse
import os
import sys

from llmd import paths
from llmd.cli.call import LOST, NO_DAEMON, RPC_ERROR, add_socket
from llmd.client import ConnectionLost, NoDaemon, Wire


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_socket(parser)


def run(options: argparse.Namespace) -> int:
    try:
        with Wire(paths.client_sockets(os.environ, options.socket)) as wire:
            reply = wire.call("daemon.reload")
    except NoDaemon as error:
        print(f"llmd: {error}", file=sys.stderr)
        return NO_DAEMON
    except ConnectionLost:
        print("llmd: the daemon closed the connection before it answered", file=sys.stderr)
        return LOST
    if "error" in reply:
        error_object = reply["error"]
        for problem in error_object["data"].get("problems", [error_object["message"]]):
            print(f"llmd: the configuration: {problem}", file=sys.stderr)
        return RPC_ERROR
    waiting = reply["result"].get("after_restart")  # a daemon may be older
    print("reloaded" + (f"; with a restart comes into force: {', '.join(waiting)}" if waiting else ""))
    return 0
