"""Mutants: the ledger with one thing broken, as patches in tests/mutants, each of which named tests must notice."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MUTANTS = Path(__file__).parent / "mutants"
TIMEOUT_S = 150

MACHINE = "tests/core/test_ledger_machine.py::test_the_ledger_is_what_a_recount_finds_and_keeps_every_cap"

KILLERS: dict[str, list[str]] = {
    "a-delegate-raising-its-own-limit": [
        "tests/test_resizing.py::test_a_handle_makes_its_own_budget_smaller_and_only_one_above_makes_it_larger"
    ],
    "an-unflushed-charge": [
        "tests/test_budget_operations_charging.py::test_a_charge_whose_record_is_not_written_is_taken_back"
    ],
    "check-self-only": [MACHINE],
    "guarantees-under-windows": [MACHINE],
    "leak-at-close": [MACHINE],
    "no-check": [MACHINE],
    "no-write-ahead": ["tests/test_payer.py::test_no_byte_leaves_before_its_hold_is_durable"],
    "settle-twice": [MACHINE],
    "shrink-the-hold-instead-of-the-call": ["tests/test_payer_fitting.py::test_an_answer_is_cut_to_what_is_left"],
    "void-on-expiry": [MACHINE],
}

# The copy, and not what is installed, or the status says so.
RUN = """
import pathlib, sys
import llmd, pytest
if not pathlib.Path(llmd.__file__).is_relative_to(sys.argv[1]):
    sys.exit(99)
sys.exit(pytest.main(sys.argv[2:]))
"""


def _apply(patch: str, root: Path) -> None:
    """Each hunk where its lines are, which is in one place; nothing is guessed."""
    file = None
    for part in re.split(r"(?m)^(?=--- |@@ )", patch):
        if part.startswith("--- "):
            file = root / part.splitlines()[1].removeprefix("+++ b/")
        elif part.startswith("@@ "):
            lines = part.splitlines(keepends=True)[1:]
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            assert file is not None
            text = file.read_text()
            assert text.count(old) == 1, f"a hunk has no one place in {file.relative_to(root)}"
            file.write_text(text.replace(old, new))
    assert file is not None, "a patch names a file"


def _copy(to: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for directory in ("llmd", "tests"):
        shutil.copytree(ROOT / directory, to / directory, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def _run(root: Path, tests: list[str]) -> tuple[int, str]:
    options = ["-n0", "-x", "--tb=line", "--hypothesis-profile=mutants", "--hypothesis-seed=1"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(root), *options, *tests],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_patch_has_its_killers_and_every_killer_its_patch() -> None:
    assert {file.stem for file in MUTANTS.iterdir()} == set(KILLERS)


@pytest.mark.parametrize("name", KILLERS)
def test_a_patch_fits_what_is_shipped(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "llmd", tmp_path / "llmd", ignore=shutil.ignore_patterns("__pycache__"))
    _apply((MUTANTS / f"{name}.patch").read_text(), tmp_path)


in_ci = pytest.mark.skipif(os.environ.get("CI") != "true", reason="a minute of killing is for CI=true, as .ci/run sets")


@in_ci
@pytest.mark.deadline(TIMEOUT_S + 30)
def test_what_is_shipped_passes_the_tests_that_kill(tmp_path: Path) -> None:
    status, output = _run(_copy(tmp_path / "copy"), sorted({test for tests in KILLERS.values() for test in tests}))
    assert status == 0, output


@in_ci
@pytest.mark.deadline(TIMEOUT_S + 30)
@pytest.mark.parametrize("name", KILLERS)
def test_a_mutant_dies(name: str, tmp_path: Path) -> None:
    copy = _copy(tmp_path / "copy")
    _apply((MUTANTS / f"{name}.patch").read_text(), copy)
    status, output = _run(copy, KILLERS[name])
    assert status == 1, output
    assert re.search(r"^1 failed\b(?!.*error)", output, re.MULTILINE), output
