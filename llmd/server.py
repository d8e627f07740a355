"""Run the daemon in the foreground with HTTP on a port of this machine, beside its Unix socket.

python -m llmd.server --port 9999 is llmd serve --listen http://127.0.0.1:9999
"""

import argparse
import sys

from llmd.cli import serve

PORT = 9999


def main(arguments: list[str] | None = None) -> int:
    """Returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m llmd.server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    serve.add_arguments(parser)
    options = parser.parse_args(arguments)
    options.listen.append(f"http://127.0.0.1:{options.port}")
    return serve.run(options)


if __name__ == "__main__":
    sys.exit(main())
