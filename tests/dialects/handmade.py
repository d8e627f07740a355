"""What hand-made requests are written with: the params of `execute`, and what of a recorded request stands in them.

Texts of some length, schemas, signatures and files are taken from the recording when it is read: they pass through llmd
as they are, and none of them is kept here.
"""

from typing import Any, NamedTuple


class Recorded(NamedTuple):
    """What the recorded request has at this path, behind `prefix` where it has one."""

    path: tuple[str | int, ...]
    prefix: str = ""

    def found(self, request: Any) -> Any:
        for step in self.path:
            request = request[step]
        return request.removeprefix(self.prefix) if self.prefix else request


def at(*path: str | int, prefix: str = "") -> Any:
    return Recorded(path, prefix)


def filled(written: Any, request: Any) -> Any:
    """The params with everything in them that the recorded request has."""
    if isinstance(written, Recorded):
        return written.found(request)
    if isinstance(written, dict):
        return {name: filled(value, request) for name, value in written.items()}
    return [filled(value, request) for value in written] if isinstance(written, list) else written


def tool(name: str, parameters: Any, description: Any = None) -> dict[str, Any]:
    return {"name": name, "parameters": parameters} | ({} if description is None else {"description": description})


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts) if len(parts) != 1 or isinstance(parts[0], dict) else parts[0]}


def text(said: Any) -> dict[str, Any]:
    return {"type": "text", "text": said}


def assistant(*parts: Any) -> dict[str, Any]:
    return {**user(*parts), "role": "assistant"}


def call(identifier: str, name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": identifier, "name": name, "arguments": arguments}


def result(identifier: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": [{"type": "tool_result", "id": identifier, "content": content, **more}]}


def state(provider: str, data: Any) -> dict[str, Any]:
    return {"type": "state", "provider": provider, "data": data}


def without(one: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name not in names}
