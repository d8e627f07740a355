"""Errors in a value are told by path and by what was expected, in words of our own."""

import msgspec
import pytest

from llmd.chat import Ask
from llmd.settings import Settings
from llmd.validation import explain

CASES = [
    (Ask, '{"prompt": "x", "max_token": 1}', "max_token", "there is no such member; there are: budget, fit,"),
    (Ask, '{"prompt": "x", "max_tokens": 0}', "max_tokens", "expected an integer >= 1"),
    (Ask, '{"prompt": "x", "max_tokens": 1.5}', "max_tokens", "expected an integer or null, got a number"),
    (Ask, '{"prompt": "x", "fit": "bend"}', "fit", 'expected "clamp" or "refuse"'),
    (Ask, '{"messages": []}', "messages", "expected an array of length >= 1"),
    (Ask, '{"messages": [{"role": "user"}]}', "messages[0].content", "missing"),
    (Ask, '{"messages": [{"role": "x", "content": ""}]}', "messages[0].role", 'expected "assistant" or "system" or'),
    (
        Ask,
        '{"messages": [{"role": "user", "content": [{"type": "poem"}]}]}',
        "messages[0].content[0].type",
        'expected "text" or "image" or "file" or',
    ),
    (Ask, '{"prompt": "x", "labels": {"a": 1}}', "labels", "expected a string, got an integer"),
    (Ask, '{"prompt": "x", "reasoning": {}}', "reasoning", "give one of `effort` and `tokens`"),
    (Ask, '{"prompt": "x", "messages": [{"role": "user", "content": ""}]}', "", "give one of `prompt` and `messages`"),
    (Ask, "[]", "", "expected an object, got an array"),
    (Settings, '{"providers": {"a": {"dialect": "x"}}}', "providers.dialect", 'expected "anthropic" or "echo" or'),
]


@pytest.mark.parametrize(("kind", "text", "path", "message"), CASES, ids=[case[1] for case in CASES])
def test_a_problem_has_its_path_and_says_what_was_expected(
    kind: type[msgspec.Struct], text: str, path: str, message: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(text, type=kind)
    problem = explain(caught.value, kind)
    assert problem.path == path
    assert problem.message.startswith(message)


def test_a_problem_with_the_value_itself_has_no_path() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b"1", type=Ask)
    assert str(explain(caught.value, Ask)) == "expected an object, got an integer"
