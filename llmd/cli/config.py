"""Check a configuration: every problem with its file, its key's path and what was expected there.

llmd config check
llmd config check --config ./config.toml
"""

import argparse
import os
import sys
from pathlib import Path

from llmd.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["check"], metavar="check", help="the only action there is")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="default: $LLMD_CONFIG, else ~/.config/llmd/config.toml"
    )


def run(options: argparse.Namespace) -> int:
    from llmd.config import load
    from llmd.keys import Key

    try:
        config = load(os.environ, options.config)
    except ConfigError as error:
        for problem in error.problems:
            print(f"{error.file}: {problem}", file=sys.stderr)
        return 1
    for warning in config.warnings:
        print(f"{config.file}: warning: {warning}", file=sys.stderr)
    where = config.file or "no file: providers come from the environment and from engines on this machine"
    print(where)
    for name, row in config.catalog.providers.items():
        key = "" if row.key is None else ", key found" if Key(row.key, os.environ).present else ", key NOT found"
        if row.key is not None and row.key.command is not None:
            key = ", key from a command, which was not run"
        print(f"  {name}: {row.dialect} {row.base_url}{key}".rstrip())
    return 0
