"""Print the OpenRPC document, or write it and every JSON Schema into a directory.

llmd schema
llmd schema --write schemas
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", metavar="DIR", type=Path, help="write openrpc.json and all schemas there")


def run(options: argparse.Namespace) -> int:
    from llmd import schemas

    if options.write is None:
        print(schemas.render(schemas.documents()["openrpc.json"]), end="")
        return 0
    try:
        files = schemas.write(options.write)
    except OSError as error:
        print(f"llmd: cannot write to {options.write}: {error.strerror}", file=sys.stderr)
        return 1
    print(*files, sep="\n")
    return 0
