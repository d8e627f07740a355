"""`llmd schema`."""

import json
from pathlib import Path

from llmd import schemas
from tests.support.cli import llmd


def test_it_prints_the_openrpc_document() -> None:
    assert json.loads(llmd("schema").out)["openrpc"].startswith("1.3.")


def test_it_writes_every_document(tmp_path: Path) -> None:
    done = llmd("schema", "--write", str(tmp_path / "new"))
    assert sorted(Path(line).name for line in done.out.splitlines()) == sorted(schemas.documents())
    assert {file.name for file in (tmp_path / "new").iterdir()} == set(schemas.documents())
