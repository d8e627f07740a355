"""The rules of the house: layers, bans, sizes, and a test file for each module. Every exception carries its reason."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "llmd"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# A file imports only from files above it. A directory is one layer, in which its own order does not matter, but for
# cycles; the package's own __init__ is the library's front, so it is below what it exports.
LAYERS = [
    "llmd.version",
    "llmd.zones",
    "llmd.errors",
    "llmd.paths",
    "llmd.fingerprint",
    "llmd.scalars",
    "llmd.books",
    "llmd.chat",
    "llmd.clock",
    "llmd.core.rows",
    "llmd.core.amounts",
    "llmd.core.rules",
    "llmd.settings",
    "llmd.users",
    "llmd.validation",
    "llmd.journal",
    "llmd.core",
    "llmd.dialects",
    "llmd.prices",
    "llmd.known",
    "llmd.catalog",
    "llmd.policy",
    "llmd.traffic",
    "llmd.echo",
    "llmd.keys",
    "llmd.proxies",
    "llmd.providers",
    "llmd.upstreams",
    "llmd.context",
    "llmd.meter",
    "llmd.budgets",
    "llmd.attempts",
    "llmd.completions",
    "llmd.hedging",
    "llmd.executor",
    "llmd.many",
    "llmd.handles",
    "llmd.watching",
    "llmd.queueing",
    "llmd.flushing",
    "llmd.stores",
    "llmd.roots",
    "llmd.treasury",
    "llmd.payer",
    "llmd.replays",
    "llmd.resizing",
    "llmd.budget_operations",
    "llmd.rpc",
    "llmd.transports",
    "llmd.tokens",
    "llmd.client",
    "llmd.spawn",
    "llmd.config",
    "llmd.process",
    "llmd.logs",
    "llmd.systemd",
    "llmd.listening",
    "llmd.daemon",
    "llmd.schemas",
    "llmd.units",
    "llmd.cli",
    "llmd.server",
    "llmd.engine",
    "llmd.places",
    "llmd.local",
    "llmd.remote",
    "llmd.tracker",
    "llmd.run_config",
    "llmd.library",
    "llmd",
    "llmd.__main__",
]

PURE_BANS = {"anyio", "asyncio", "trio", "httpx", "aiohttp", "sqlite3", "time", "os", "logging", "socket", "random"}
ONLY_HERE = {
    "httpx": "llmd.providers",
    "aiohttp": "llmd.providers",
    "jsonrpcserver": "llmd.rpc.dispatch",
    "sqlite3": "llmd.journal.database",
    "prometheus_client": "llmd.transports.metrics",
}
STANDARD_LIBRARY_ONLY = [
    "llmd",
    "llmd.errors",
    "llmd.paths",
    "llmd.fingerprint",
    "llmd.client",
    "llmd.spawn",
    "llmd.cli",
    "llmd.cli.call",
]

FILE_LINES_MAX = 300
LONGER_FILES = {
    "llmd/core/ledger.py": "one tree: all of its operations share its state",
    "llmd/rpc/session.py": "one connection: reading, calls, answers and ending share all of its state",
    "tests/rpc/test_contract.py": "one table, which is read as one",
}
FUNCTION_LINES_MAX = 70

UNTESTED_MODULES = {
    "llmd/version.py": "holds the version",
    "llmd/places.py": "types alone",
    "llmd/client/__init__.py": "holds names",
    "llmd/__main__.py": "one line; every test that starts a daemon runs it",
    "llmd/scalars.py": "types alone",
    "llmd/known.py": "one table; tests of the catalog and of the recordings walk it",
    "llmd/completions.py": "tests of the executor see every member",
    "llmd/core/__init__.py": "holds a docstring",
    "llmd/core/choices.py": "tests of routing plan with them",
    "llmd/core/needs.py": "tests of routing have requests with each of them",
    "llmd/core/plans.py": "tests of routing read them",
    "llmd/core/holds.py": "types alone",
    "llmd/core/outcomes.py": "types alone",
    "llmd/core/ledger_rows.py": "types alone",
    "llmd/dialects/__init__.py": "one table, used by every test of a dialect",
    "llmd/dialects/draft.py": "what the dialects have in common: the tests of each read through it",
    "llmd/context.py": "types, and an error that tests of the executor see",
    "llmd/budgets.py": "types alone",
    "llmd/transports/__init__.py": "one table, which tests of a daemon that listens use",
    "llmd/rpc/__init__.py": "one table; test_schemas and test_contract walk it",
    "llmd/rpc/base.py": "types alone",
}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def _imports(file: Path) -> set[str]:
    """Every module that a file imports, lazily or for types as well."""
    found: set[str] = set()
    known = {_name(other) for other in MODULES}
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            module = node.module or ""
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else module for name in names}
    return found


def _layer(module: str) -> int:
    while module not in LAYERS:
        module, dot, _ = module.rpartition(".")
        assert dot, "a module below llmd has a layer"
    return LAYERS.index(module)


@pytest.mark.parametrize("file", MODULES, ids=_name)
def test_a_module_imports_only_from_the_layers_above_it(file: Path) -> None:
    own = _layer(_name(file))
    for imported in _imports(file):
        if imported.split(".")[0] == "llmd" and imported != _name(file):
            assert _layer(imported) <= own, f"{_name(file)} imports {imported}, which is below it"
            if _layer(imported) == own:
                assert _package(imported) == _package(_name(file)), f"{imported} is of another part of this layer"


def _package(module: str) -> str:
    return LAYERS[_layer(module)]


def test_every_layer_is_a_module_that_is_there() -> None:
    known = {_name(file) for file in MODULES} | {_name(file.parent / "__init__.py") for file in MODULES}
    assert [layer for layer in LAYERS if layer not in known] == []


def test_there_are_no_cycles() -> None:
    known = {_name(file) for file in MODULES}
    graph = {_name(file): _imports(file) & known for file in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("file", [*(PACKAGE / "core").glob("*.py"), *(PACKAGE / "dialects").glob("*.py")], ids=_name)
def test_cores_and_dialects_are_pure(file: Path) -> None:
    assert {name.split(".")[0] for name in _imports(file)} & PURE_BANS == set()


@pytest.mark.parametrize("banned", ONLY_HERE)
def test_a_heavy_part_has_one_importer(banned: str) -> None:
    importers = {_name(file) for file in MODULES if banned in {name.split(".")[0] for name in _imports(file)}}
    assert importers == {ONLY_HERE[banned]}


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_the_path_of_a_call_imports_only_the_standard_library(module: str) -> None:
    code = (
        f"import sys; before = set(sys.modules); import {module}; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["llmd"]


@pytest.mark.parametrize("file", [*MODULES, *TESTS], ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_says_what_it_is_and_stays_readable(file: Path) -> None:
    text = file.read_text()
    tree = _tree(file)
    name = str(file.relative_to(ROOT))
    assert ast.get_docstring(tree) or not text, "a file says at its top what it owns"
    assert len(text.splitlines()) <= FILE_LINES_MAX or name in LONGER_FILES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, f"{name}: {node.name} is too long"


@pytest.mark.parametrize("file", MODULES, ids=_name)
def test_a_module_has_a_test_file(file: Path) -> None:
    inside = file.relative_to(PACKAGE)
    stem = "init" if inside.stem == "__init__" else inside.stem
    test = ROOT / "tests" / inside.parent / f"test_{stem}.py"
    assert test.exists() != (str(file.relative_to(ROOT)) in UNTESTED_MODULES)


def test_exceptions_are_still_needed() -> None:
    for name in LONGER_FILES:
        assert len((ROOT / name).read_text().splitlines()) > FILE_LINES_MAX, name
    for name in UNTESTED_MODULES:
        assert (ROOT / name).exists(), name


SLEEPERS = {
    "tests/test_tidy.py": "names what it bans",
}


@pytest.mark.parametrize("file", TESTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_tests_wait_for_events(file: Path) -> None:
    assert not re.search(r"\bsleep\(", file.read_text()) or str(file.relative_to(ROOT)) in SLEEPERS


def test_a_lint_exception_has_its_reason_beside_it() -> None:
    for file in [*MODULES, *TESTS]:
        for line in file.read_text().splitlines():
            if re.search(r"#\s*(noqa|type:\s*ignore)", line) and file != Path(__file__):
                assert re.search(r"#\s*(noqa: \S+|type: ignore\[[a-z-]+\])\s+[-#]\s*\w", line), line


@pytest.mark.parametrize("command", [["mypy"], ["ruff", "check"], ["ruff", "format", "--check"]], ids=" ".join)
def test_the_checkers_are_content(command: list[str], tmp_path: Path) -> None:
    cache = ["--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", *command, *cache], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
