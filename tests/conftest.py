"""What every test has: a deadline, an event loop of the daemon's kind, and no trace of the machine's own llmd."""

import faulthandler
import inspect
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, settings

from llmd.known import KNOWN

DEADLINE_S = 60.0
GRACE_S = 5.0

pytest_plugins = ["tests.support.engine"]

# No database: what fails says how to run it again, and the tree stays as it was.
settings.register_profile(
    "quick",
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
    print_blob=True,
)
settings.register_profile("ci", settings.get_profile("quick"))  # the ledger's machine runs longer there
settings.register_profile("deep", settings.get_profile("quick"), max_examples=10_000)
# That a mutant dies is enough: nobody reads of what.
settings.register_profile("mutants", settings.get_profile("quick"), phases=[Phase.generate])
settings.load_profile("ci" if os.environ.get("CI") == "true" else "quick")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An async test runs under its deadline as a cancel scope: a loop that waits in C does not hear the alarm."""
    for item in items:
        test = getattr(item, "obj", None)
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(test):
            item.obj = _bounded(test, _seconds(item))


def _bounded(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        with anyio.fail_after(seconds):
            await test(*args, **kwargs)

    return run


def _seconds(item: pytest.Item) -> float:
    marker = item.get_closest_marker("deadline")
    return float(marker.args[0]) if marker else DEADLINE_S


@pytest.fixture(autouse=True)
def deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that hangs. `@pytest.mark.deadline(seconds)` gives a long one more."""
    seconds = _seconds(request.node)

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_S)
    # Behind both: what hangs in C ends the run, and says where.
    faulthandler.dump_traceback_later(seconds + 2 * GRACE_S, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Homes:
    """Directories that llmd finds through the environment. They are made anew behind a test that has used them."""

    NAMES = {"XDG_RUNTIME_DIR": "run", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config"}

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self.paths: dict[str, Path] = {}

    def clean(self) -> None:
        if not self.paths or any(os.listdir(path) for path in self.paths.values()):
            root = self._factory.mktemp("homes")
            self.paths = {name: root / directory for name, directory in self.NAMES.items()}
            for path in self.paths.values():
                path.mkdir(mode=0o700)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    return Homes(tmp_path_factory)


@pytest.fixture(autouse=True)
def own_environment(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path that llmd takes from the environment is this test's own, and no key is set."""
    homes.clean()
    for name, path in homes.paths.items():
        monkeypatch.setenv(name, str(path))
    for name in ("LLMD_SOCKET", "LLMD_CONFIG", *(variable for row in KNOWN.values() for variable in row.key_env)):
        monkeypatch.delenv(name, raising=False)
