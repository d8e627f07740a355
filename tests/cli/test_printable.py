"""Names that others chose cannot steer a terminal."""

import pytest

from llmd.cli.printable import tame


@pytest.mark.parametrize(
    ("text", "shown"),
    [("caf\u00e9 \u65e5", "caf\u00e9 \u65e5"), ("a\x1b[2J", "a\\x1b[2J"), ("\u202ea\n", "\\u202ea\\n")],
)
def test_what_is_not_print_is_escaped(text: str, shown: str) -> None:
    assert tame(text) == shown
