"""`models.list`: what could be called, with what is known of it."""

from pathlib import Path

import pytest

from tests.support.daemon import running_daemon

CONFIG = """
default_model = "work/m1"

[providers.work]
base_url = "http://127.0.0.1:9/v1"
api_key = { env = "A_VARIABLE_THAT_IS_NOT_SET" }

[providers.work.models.m1]
price = { input = 1.0, output = 2.0 }
context_tokens = 1000

[providers.work.models.m2]
"""


@pytest.mark.usefixtures("usual_ports")
def test_models_come_with_prices_limits_and_health(tmp_path: Path) -> None:
    with running_daemon(tmp_path, config=CONFIG) as daemon, daemon.wire() as wire:
        models = {model["model"]: model for model in wire.call("models.list")["result"]["models"]}
    assert list(models) == ["echo/echo", "work/m1", "work/m2"]
    assert models["work/m1"] == {
        "model": "work/m1",
        "provider": "work",
        "dialect": "openai",
        "price": {"input": 1.0, "output": 2.0},
        "context_tokens": 1000,
        "max_output_tokens": None,
        "default": True,
        "health": "no_key",
    }
    assert models["work/m2"]["price"] is None
    assert (models["echo/echo"]["health"], models["echo/echo"]["default"]) == ("ready", False)


def test_an_engine_that_does_not_answer_is_left_out(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon, daemon.wire() as wire:
        providers = {model["provider"] for model in wire.call("models.list")["result"]["models"]}
    assert "echo" in providers
    assert "ollama" not in providers
