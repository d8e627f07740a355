"""Run the daemon in the foreground, until SIGTERM or an interrupt. SIGHUP reads the configuration again.

llmd serve
llmd serve --listen http://127.0.0.1:9999
llmd serve --listen tcp://127.0.0.1:9998 --require-token
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from llmd import paths
from llmd.errors import ConfigError

WINNER_TIMEOUT_S = 10.0
RETRY_S = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--socket", metavar="PATH", help="default: $LLMD_SOCKET, else this user's")
    parser.add_argument(
        "--listen",
        metavar="URL",
        action="append",
        default=[],
        help="also listen there: tcp://127.0.0.1:9998 or http://127.0.0.1:9999",
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="default: ~/.config/llmd/config.toml")
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="the token for TCP and HTTP; made if missing")
    parser.add_argument("--require-token", action="store_true", help="on TCP and HTTP, even this user needs the token")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    parser.add_argument("--log-format", choices=["text", "json"], default="text", help="json: one object a line")
    # For `llmd call`, which starts a daemon where none runs.
    parser.add_argument("--spawned", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--idle-exit-s", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    import anyio

    from llmd import logs
    from llmd.daemon import IDLE_EXIT_S, Daemon, Options
    from llmd.journal import StoreUnavailable
    from llmd.listening import handed_path
    from llmd.systemd import Manager
    from llmd.transports.claims import GIVE_WAY, SocketTaken, SocketUnavailable

    # A spawned daemon keeps its log beside its state.
    log = paths.log_file(os.environ) if options.spawned else None
    logs.configure(log, options.log_level, options.log_format, os.environ)
    manager = Manager(os.environ)
    named = handed_path(manager.handed) or paths.named_socket(os.environ, options.socket)
    decided = Options(
        socket=(named or paths.default_socket(os.environ)).absolute(),
        config=options.config,
        listen=options.listen,
        token_file=options.token_file,
        require_token=options.require_token,
        spawned=options.spawned,
        idle_exit_s=IDLE_EXIT_S if options.idle_exit_s is None else options.idle_exit_s,
        ready_fd=options.ready_fd,
    )

    async def serve() -> None:
        await Daemon(decided, os.environ.copy(), manager).serve()

    # Who reads our pid in the lock file may ask at once: that waits until the daemon heeds it, and kills nobody.
    signal.pthread_sigmask(signal.SIG_BLOCK, [GIVE_WAY])
    until = time.monotonic() + WINNER_TIMEOUT_S
    while True:
        try:
            anyio.run(serve, backend_options={"use_uvloop": True})
            return 0
        except SocketTaken as error:
            # Of several that are spawned at once one wins; a daemon that is just stopping leaves the path to us.
            if options.ready_fd is None or not options.spawned or time.monotonic() > until:
                return _complain(str(error))
            if _answers(decided.socket):
                os.write(options.ready_fd, b"\n")
                return 0
            time.sleep(RETRY_S)
        except (SocketUnavailable, StoreUnavailable) as error:
            return _complain(str(error))
        except ConfigError as error:
            return _complain("; ".join(f"{error.file or 'configuration'}: {problem}" for problem in error.problems))


def _answers(socket: Path) -> bool:
    """Whether the daemon that was faster answers by now."""
    from llmd.client import NoDaemon, Wire

    try:
        Wire([socket]).__exit__()
    except NoDaemon:
        return False
    return True


def _complain(message: str) -> int:
    print(f"llmd: {message}", file=sys.stderr)
    return 1
