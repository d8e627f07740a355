"""Every recorded OpenAI chat request, read as a server reads it and built again, is the same but for what is listed."""

import json
import re
from typing import Any

import msgspec
import pytest

from llmd.dialects.openai_server import read_request
from llmd.errors import LLMError
from tests.dialects.test_recordings import rows_of
from tests.support.calls import DIALECT, row

REFUSED = {
    "8c3b1cd639dd6386": "messages[3].content[1].image_url.url",
    "375e3bf54e41168b": "messages[3].content[0].image_url.url",
    "e4617a53bdb2bfa1": "messages[3].content[1].image_url.url",
    "5454f54fe06cea49": "messages[0].content[1].image_url.url",
    "3a47a52681f2912f": "messages[0].content[1].image_url.url",
    "46288006805e8821": "messages[0].content[1].image_url.url",
    "f82300f29a65519e": "messages[0].content[1].image_url.url",
    "87d9f1624c74ee9f": "messages[0].content[1].image_url.url",
    "9a2bf08b60175444": "messages[0].content[1].image_url.url",
    "52726a743fc826dc": "messages[3].content[0].file.file_data",  # a file that the provider has
    "cbbe9482f25eb033": "n",
    "8be8a5b4a95c61ab": "n",
    "bb9bc6a603861372": "messages[1].content[0].type",  # messages within a message
    "7d2864af64ead371": "max_tokens",  # 0
    # cut by the recorder, and of a kind that llmd takes none of
    "afbf47a256bd5526": "messages[0].content[1].type",  # audio
    "3d31a0f19627d057": "messages[0].content[1].type",
    "0d9d0d1d94fc301f": "messages[3].content[1].type",
    "7c1dafbc2c777b22": "messages[3].content[0].type",
    "7debf3a41c1b911e": "messages[0].content[1].type",
    "32e81c6a96dd54d3": "messages[0].content[1].type",  # a file's URL
    "95a55c835fe55a7e": "messages[4].content[1].type",  # a document's
    "d546bef11c3d8361": "messages[4].content[0].type",
    "f75af8a2c28f8f62": "messages[0].content[1].image_url",  # no object
}
"""What llmd does not take, and the path that it names: media that it would have to fetch, and several choices."""


OMITTED = re.compile(r'"<omitted [^"]*>"')
"""What the recorder has put for long data."""


def requests() -> list[Any]:
    return rows_of(lambda recording: recording["api"] == "openai.chat" and recording["request_json"])


def same(asked: Any) -> Any:
    """The request but for what llmd says in its own way or leaves to the provider; null is as good as nothing."""
    said = without_nulls(asked)
    said["messages"] = [message(one) for one in said["messages"]]
    said.pop("n", None)  # 1
    if not said.get("stream"):
        said.pop("stream", None)
    said.pop("stream_options", None)  # llmd asks for usage wherever a stream tells it
    if said.get("tool_choice") == "any":
        said["tool_choice"] = "required"
    if isinstance(said.get("tool_choice"), dict):
        said["tool_choice"] = {"type": "function", **said["tool_choice"]}
    for tool in said.get("tools", []):
        if "function" in tool:
            tool["type"] = "function"
            tool["function"].setdefault("parameters", {})
    if (form := said.get("response_format", {}).get("json_schema")) is not None:
        form.setdefault("strict", False)  # which is OpenAI's default, and not llmd's
    if "max_tokens" in said:
        said["max_completion_tokens"] = said.pop("max_tokens")
    return said


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def message(one: dict[str, Any]) -> dict[str, Any]:
    """All of its members, in one of the ways to say the same."""
    said = {**one, "role": "system" if one["role"] == "developer" else one["role"]}
    content = one.get("content")
    if isinstance(content, list) and all(part.keys() == {"type", "text"} for part in content):
        said["content"] = "\n".join(part["text"] for part in content)
    for part in content if isinstance(content, list) else []:
        if part.get("type") == "file":
            part["file"].setdefault("filename", "file")  # a name is wanted
    if not said.get("content"):  # "" beside calls
        said.pop("content", None)
    for call in one.get("tool_calls", []):
        call["type"] = "function"
        call["function"]["arguments"] = json.loads(call["function"]["arguments"] or "{}")
    return said


@pytest.mark.parametrize("recording", requests())
def test_a_recorded_request_is_built_again_as_it_was(recording: dict[str, Any]) -> None:
    asked = recording["request_json"]
    data = OMITTED.sub('"data:image/png;base64,AAAA"', json.dumps(asked)).encode()
    if (path := REFUSED.get(recording["id"])) is not None:
        with pytest.raises(LLMError) as caught:
            read_request(data)
        assert caught.value.data["path"] == path
        return
    read = read_request(data)
    target = row(model=read.ask.model or "", max_tokens_name="max_completion_tokens")
    made = DIALECT.request(read.ask, target, read.ask.max_tokens, read.stream)
    built = msgspec.json.decode(made.body)
    assert same(built) == same(json.loads(data) | {"model": asked.get("model") or ""})
    assert made.dropped == []
