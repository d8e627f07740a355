"""What is wrong with a value that does not fit its type: where, and what was expected, in llmd's own words."""

import re
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

_FOUND = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>[$][^`]*)`)?", re.S)
_STEP = re.compile(r"[^.\[\]]+|\[[^\]]*\]")
_TYPES = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
}


class Problem(NamedTuple):
    """`path` is empty for the value itself, else as in `messages[0].content`."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def explain(error: msgspec.ValidationError, kind: Any) -> Problem:
    """The problem behind msgspec's error about a value that should have been a `kind`."""
    found = _FOUND.fullmatch(str(error))
    assert found is not None, "the pattern matches every string"
    path = (found["path"] or "$")[1:].removeprefix(".")
    shown = path.replace("[...]", "")
    what = found["what"]
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.S):
        return Problem(_join(shown, match[1][:128]), f"there is no such member; there are: {_known(kind, path)}")
    if match := re.fullmatch(r"Object missing required field `(.*)`", what, re.S):
        return Problem(_join(shown, match[1]), "missing")
    if match := re.fullmatch(r"Expected `(.*)`, got `(.*)`", what):
        return Problem(shown, f"expected {_type(match[1])}, got {_type(match[2])}")
    if match := re.fullmatch(r"Expected `(.*?)` (.*)", what, re.S):
        return Problem(shown, f"expected {_type(match[1])} {match[2]}")
    if re.match(r"Invalid (enum )?value ", what):
        return Problem(shown, f"expected {_allowed(kind, path)}")
    if "out of range" in what:
        return Problem(shown, "the number is out of range")
    # Only checks of our own raise with words of their own (ValueError in __post_init__).
    return Problem(shown, what)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _type(name: str) -> str:
    return " or ".join(_TYPES.get(one, one) for one in name.split(" | "))


def _known(kind: Any, path: str) -> str:
    members = {name for schema in _schemas(kind, path) for name in schema.get("properties", {})}
    return ", ".join(sorted(members)) or "none"


def _allowed(kind: Any, path: str) -> str:
    """The values that may stand at `path`, as in `"refuse" or "clamp"`."""
    values: list[Any] = []
    for schema in _schemas(kind, path):
        values += schema.get("enum", [schema["const"]] if "const" in schema else [])
    return " or ".join(msgspec.json.encode(value).decode() for value in dict.fromkeys(values)) or "another value"


def _schemas(kind: Any, path: str) -> list[dict[str, Any]]:
    """The JSON Schemas that could apply at `path`: more than one below a union."""
    top, components = _components(kind)

    def alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
        if "$ref" in schema:
            return alternatives(components[schema["$ref"]])
        return [one for branch in schema["anyOf"] for one in alternatives(branch)] if "anyOf" in schema else [schema]

    found = alternatives(top)
    for step in _STEP.findall(path):
        inner = [_below(schema, step) for schema in found]
        found = [one for schema in inner if schema is not None for one in alternatives(schema)]
    return found


@lru_cache(64)
def _components(kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a type, and those that it refers to: they take longer to make than a call."""
    (top,), components = msgspec.json.schema_components([kind], ref_template="{name}")
    return top, components


def _below(schema: dict[str, Any], step: str) -> dict[str, Any] | None:
    name = "additionalProperties" if step == "[...]" else "items" if step.startswith("[") else None
    inner = schema.get(name) if name else schema.get("properties", {}).get(step)
    return inner if isinstance(inner, dict) else None
