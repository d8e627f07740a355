"""`python -m llmd` is the `llmd` command."""

import sys

from llmd.cli import main

if __name__ == "__main__":
    sys.exit(main())
