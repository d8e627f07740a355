"""JSON Schemas (2020-12) of methods, notifications and the configuration, and the OpenRPC document, from the types."""

from pathlib import Path
from typing import Any

import msgspec

from llmd.rpc import METHODS, NOTIFICATIONS
from llmd.rpc.discover import described_alike, openrpc
from llmd.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def documents() -> dict[str, dict[str, Any]]:
    """Every generated document by its file's name."""
    found = {"openrpc.json": openrpc(METHODS), "config.schema.json": _schema("configuration", Settings)}
    for name, method in METHODS.items():
        found[f"{name}.params.schema.json"] = _schema(f"params of {name}", method.params)
        found[f"{name}.result.schema.json"] = _schema(f"result of {name}", method.result)
    for name, params in NOTIFICATIONS.items():
        found[f"{name}.params.schema.json"] = _schema(f"params of the notification {name}", params)
    return found


def render(document: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2).decode() + "\n"


def write(directory: Path) -> list[Path]:
    """Write every document into `directory`; returns the files, in order."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, document in sorted(documents().items()):
        file = directory / name
        file.write_text(render(document), encoding="utf-8")
        files.append(file)
    return files


def _schema(title: str, kind: Any) -> dict[str, Any]:
    return {"$schema": DIALECT, "title": title, **described_alike(msgspec.json.schema(kind))}
