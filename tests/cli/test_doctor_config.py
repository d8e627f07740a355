"""What `llmd doctor` finds by a configuration: who may read and write it, its store, and what providers say to keys."""

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from llmd import paths
from llmd.cli.doctor_config import Finding, config_findings
from llmd.config import load


class Provider(BaseHTTPRequestHandler):
    """Lists its models to one key."""

    def do_GET(self) -> None:
        right = self.headers["authorization"] == "Bearer sk-right"
        body = json.dumps({"data": [{"id": "m"}]} if right else {"error": {"message": "no"}}).encode()
        self.send_response(200 if right else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def found(text: str, directory: Path, by_daemon: dict[str, str] | None = None, mode: int = 0o600) -> list[Finding]:
    file = directory / "c.toml"
    file.write_text(text)
    file.chmod(mode)
    return list(config_findings(load(os.environ, file), by_daemon or {}))


def provider(url: str, key: str = '{ env = "WORK_KEY" }') -> str:
    return f'[providers.work]\ndialect = "openai"\nbase_url = "{url}"\napi_key = {key}\n'


@pytest.mark.parametrize(
    ("key", "told", "cure"),
    [
        ("sk-right", "ready", None),
        ("sk-wrong", "key refused", "put a valid one there (environment variable WORK_KEY)"),
        (
            None,
            "no key, the daemon's environment has no WORK_KEY",
            "set it where the daemon can read it (environment variable WORK_KEY)",
        ),
    ],
)
def test_each_provider_is_asked_with_its_key(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, told: str, cure: str | None
) -> None:
    if key is not None:
        monkeypatch.setenv("WORK_KEY", key)
    findings = found(provider(url), tmp_path)
    assert findings[-1] == Finding("provider work", told, cure)
    assert "sk-" not in str(findings)


def test_a_key_that_is_the_daemons_alone_is_asked_of_the_daemon(url: str, tmp_path: Path) -> None:
    text = provider(url, '{ credential = "work" }')
    assert found(text, tmp_path, {"work": "ready"})[-1] == Finding("provider work", "ready")
    assert found(text, tmp_path)[-1].cure == "set it where the daemon can read it (systemd credential work)"


def test_a_provider_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_KEY", "sk-right")
    last = found(provider("http://127.0.0.1:1/v1"), tmp_path)[-1]
    assert (last.told, last.cure) == ("unreachable", "see that its address is right and this machine can reach it")


def test_files_that_others_may_read_or_write_are_told(tmp_path: Path) -> None:
    token = paths.token_file(os.environ)
    token.parent.mkdir(parents=True, exist_ok=True)
    token.write_text("x")
    token.chmod(0o644)
    cures = [finding.cure for finding in found("", tmp_path, mode=0o666) if finding.subject == "permissions"]
    assert cures == [f"chmod go-w {tmp_path}/c.toml", f"chmod 600 {token}"]


def test_a_store_that_is_damaged_is_told(tmp_path: Path) -> None:
    paths.ledger_file(os.environ).parent.mkdir(parents=True, exist_ok=True)
    assert [one.told for one in found("", tmp_path) if one.subject == "store"] == [
        f"nothing at {paths.ledger_file(os.environ)} yet"
    ]
    paths.ledger_file(os.environ).write_bytes(b"no database at all" * 500)
    assert next(one for one in found("", tmp_path) if one.subject == "store").cure == "llmd ledger check tells more"
    assert found('[ledger]\nstore = "memory"\n', tmp_path)[-1].told == "budgets are kept in memory"
