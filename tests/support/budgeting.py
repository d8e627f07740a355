"""A caller of `budget.*` over one connection: every result is checked against its schema."""

import json
from typing import Any

import msgspec

from llmd.client import Wire
from llmd.rpc import METHODS


class RefusedError(Exception):
    """The daemon answered with an error; `data` has its kind."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.message: str = error["message"]
        self.data: dict[str, Any] = error["data"]
        self.kind: str = error["data"]["kind"]


class Caller:
    """Calls methods by name; what it returns is the result as it came, with every member that the contract names."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def __call__(self, method: str, **params: Any) -> Any:
        reply = self.wire.call(method, json.dumps(params))
        if "error" in reply:
            raise RefusedError(reply["error"])
        result = reply["result"]
        kind = METHODS[method].result
        told = msgspec.convert(result, kind)
        assert msgspec.to_builtins(told) == result, "every member is there, and there is no other"
        return result

    def open(self, **params: Any) -> Any:
        return self("budget.open", **params)

    def execute(self, budget: str, prompt: str = "one two three", model: str = "echo/echo", **params: Any) -> Any:
        return self("execute", model=model, prompt=prompt, budget=budget, **params)
