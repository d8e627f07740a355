"""What is wrong with a value that does not fit its type: where, and what was expected, in llmd's own words."""

import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec

_PATH = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>[$][^`]*)`)?", re.S)
_RULES: list[tuple[re.Pattern[str], Callable[[re.Match[str], str], "Problem"]]] = [
    (
        re.compile(r"Object contains unknown field `(.*)`", re.S),
        lambda found, path: Problem(_join(path, found[1][:128]), "unknown: there is no such member"),
    ),
    (
        re.compile(r"Object missing required field `(.*)`", re.S),
        lambda found, path: Problem(_join(path, found[1]), "missing"),
    ),
    (
        re.compile(r"Expected `(.*)`, got `(.*)`"),
        lambda found, path: Problem(path, f"expected {_type(found[1])}, got {_type(found[2])}"),
    ),
    (
        re.compile(r"Expected `(.*?)` (.*)", re.S),
        lambda found, path: Problem(path, f"expected {_type(found[1])} {found[2]}"),
    ),
    (
        re.compile(r"Invalid (enum )?value .*", re.S),
        lambda found, path: Problem(path, "not one of the values that are allowed here"),
    ),
    (
        re.compile(r"(Integer|Number) .*out of range", re.S),
        lambda found, path: Problem(path, "the number is out of range"),
    ),
]


class Problem(NamedTuple):
    """`path` is empty for the value itself, else as in `messages[0].content`."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def explain(error: msgspec.ValidationError, prefix: str = "") -> Problem:
    """The problem behind msgspec's error; `prefix` is the path of the value that was being decoded."""
    found = _PATH.fullmatch(str(error))
    assert found is not None, "the pattern matches every string"
    path = _join(prefix, (found["path"] or "$")[1:].replace("[...]", "").removeprefix("."))
    for pattern, problem in _RULES:
        if match := pattern.fullmatch(found["what"]):
            return problem(match, path)
    # Only checks of our own raise with words of their own (ValueError in __post_init__).
    return Problem(path, found["what"])


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name and not name.startswith("[") else path + name


def _type(name: str) -> str:
    names = {"str": "a string", "int": "an integer", "float": "a number", "bool": "true or false"}
    names |= {"array": "an array", "object": "an object"}
    return " or ".join(names.get(one, one) for one in name.split(" | "))
