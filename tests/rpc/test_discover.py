"""`rpc.discover` describes exactly the methods that there are."""

from pathlib import Path

from llmd import schemas
from llmd.rpc import METHODS
from llmd.rpc.discover import openrpc
from tests.support.daemon import running_daemon


def test_every_method_is_described_and_no_other() -> None:
    document = openrpc(METHODS)
    assert [method["name"] for method in document["methods"]] == list(METHODS)
    execute = document["methods"][0]
    assert {param["name"] for param in execute["params"]} >= {"prompt", "messages", "model", "timeout_ms", "stream"}
    assert execute["paramStructure"] == "by-name"


def test_the_daemon_answers_with_the_document_that_is_committed(tmp_path: Path) -> None:
    with running_daemon(tmp_path) as daemon, daemon.wire() as wire:
        assert wire.call("rpc.discover")["result"] == schemas.documents()["openrpc.json"]
