"""`rpc.discover`: the methods as an OpenRPC 1.3 document, made from their types."""

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from llmd.context import Context
from llmd.errors import KINDS
from llmd.rpc.base import Empty, Method, Service
from llmd.version import VERSION

_COMPONENT = "#/components/schemas/{name}"


def described_alike(schema: Any) -> Any:
    """`schema` with its descriptions dedented: docstrings keep their indentation before Python 3.13."""
    if isinstance(schema, dict):
        return {
            name: inspect.cleandoc(value)
            if name == "description" and isinstance(value, str)
            else described_alike(value)
            for name, value in schema.items()
        }
    return [described_alike(value) for value in schema] if isinstance(schema, list | tuple) else schema


def openrpc(methods: Mapping[str, Method]) -> dict[str, Any]:
    """The OpenRPC document for these methods; every schema stands once, under components."""
    types = [kind for method in methods.values() for kind in (method.params, method.result)]
    schemas, components = described_alike(msgspec.json.schema_components(types, ref_template=_COMPONENT))
    results = schemas[1::2]
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "llmd",
            "version": VERSION,
            "description": "LLM calls over JSON-RPC 2.0 on a Unix socket.",
            "license": {"name": "MIT"},
        },
        "methods": [
            {
                "name": name,
                "summary": method.summary,
                "paramStructure": "by-name",
                "params": _params(method, components),
                "result": {"name": "result", "schema": result},
                "errors": [{"$ref": f"#/components/errors/{kind}"} for kind in KINDS],
            }
            for (name, method), result in zip(methods.items(), results, strict=True)
        ],
        "components": {
            "schemas": components,
            "errors": {kind: {"code": row.code, "message": kind} for kind, row in KINDS.items()},
        },
    }


def _params(method: Method, components: dict[str, Any]) -> list[dict[str, Any]]:
    schema = components[method.params.__name__]
    required = schema.get("required", [])
    return [
        {"name": name, "required": name in required, "schema": member} for name, member in schema["properties"].items()
    ]


class _Discover:
    """Makes the document once: it takes milliseconds, and is answered at once however much is in flight."""

    def __init__(self) -> None:
        self._made: tuple[Mapping[str, Method], msgspec.Raw] | None = None

    def __call__(self, service: Service, params: Empty, ctx: Context) -> msgspec.Raw:
        if self._made is None or self._made[0] is not service.methods:
            self._made = service.methods, msgspec.Raw(msgspec.json.encode(openrpc(service.methods)))
        return self._made[1]


DISCOVER = Method(Empty, dict[str, Any], "Describe every method as an OpenRPC document.", now=_Discover())
