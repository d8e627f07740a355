"""What every test has: a deadline, an event loop of the daemon's kind, and no trace of the machine's own llmd."""

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from llmd.catalog import KNOWN

DEADLINE_S = 60

pytest_plugins = ["tests.support.engine"]

settings.register_profile("quick", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", settings.get_profile("quick"), max_examples=10_000)
settings.load_profile("quick")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that hangs. `@pytest.mark.deadline(seconds)` gives a long one more."""
    marker = request.node.get_closest_marker("deadline")
    seconds = marker.args[0] if marker else DEADLINE_S

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path that llmd takes from the environment is this test's own, and no key is set."""
    for name, directory in {"XDG_RUNTIME_DIR": "run", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config"}.items():
        (tmp_path / directory).mkdir(mode=0o700)
        monkeypatch.setenv(name, str(tmp_path / directory))
    for name in ("LLMD_SOCKET", "LLMD_CONFIG", *(variable for row in KNOWN.values() for variable in row.key_env)):
        monkeypatch.delenv(name, raising=False)
