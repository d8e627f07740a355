"""The front of the library: what it exports is there, sorted, the same for type checkers, and costs nothing unused."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llmd


def test_what_is_exported_is_sorted_and_there() -> None:
    assert llmd.__all__ == sorted(llmd.__all__)
    for name in llmd.__all__:
        assert getattr(llmd, name) is not None
        assert name in dir(llmd)


def test_a_type_checker_sees_the_same_names() -> None:
    (guarded,) = [node for node in ast.parse(Path(llmd.__file__).read_text()).body if isinstance(node, ast.If)]
    seen = {alias.name for line in guarded.body if isinstance(line, ast.ImportFrom) for alias in line.names}
    assert seen == set(llmd.__all__) - {"__version__"}


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="'llmd' has no attribute 'nothing'"):
        _ = llmd.nothing


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import llmd; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["llmd", "llmd.version"]


def test_the_package_says_that_it_has_types() -> None:
    assert Path(llmd.__file__).with_name("py.typed").exists()
