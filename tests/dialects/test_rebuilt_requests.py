"""Every recorded OpenAI chat request, read as a server reads it and built again, is the same but for what is listed."""

import json
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
    "52726a743fc826dc": "messages[3].content[0].file.file_data",  # a file that the provider has
    "cbbe9482f25eb033": "n",
    "8be8a5b4a95c61ab": "n",
    "bb9bc6a603861372": "messages[1].content[0].type",  # messages within a message
    "7d2864af64ead371": "max_tokens",  # 0
}
"""What llmd does not take, and the path that it names: media that it would have to fetch, and several choices."""


def requests() -> list[Any]:
    return rows_of(
        lambda recording: (
            recording["api"] == "openai.chat" and recording["request_json"] and not recording["request_truncated"]
        )
    )


def same(asked: dict[str, Any]) -> dict[str, Any]:
    """The request but for what llmd says in its own way or leaves to the provider; null is as good as nothing."""
    said = {name: value for name, value in asked.items() if value is not None}
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
            tool["function"].pop("strict", None)  # schemas are not enforced on tools
            tool["function"].setdefault("parameters", {})
    if (form := said.get("response_format", {}).get("json_schema")) is not None:
        form["strict"] = True  # as every schema that llmd sends
        form.pop("description", None)
    if "max_tokens" in said:
        said["max_completion_tokens"] = said.pop("max_tokens")
    return said


def message(one: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "system" if one["role"] == "developer" else one["role"]}
    content = one.get("content")
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        content = "\n".join(part["text"] for part in content)
    if content:
        said["content"] = content
    if one["role"] == "tool":
        said["tool_call_id"] = one["tool_call_id"]
    if one.get("tool_calls"):
        said["tool_calls"] = [
            {
                "id": call["id"],
                "name": call["function"]["name"],
                "arguments": json.loads(call["function"]["arguments"] or "{}"),
            }
            for call in one["tool_calls"]
        ]
    return said


@pytest.mark.parametrize("recording", requests())
def test_a_recorded_request_is_built_again_as_it_was(recording: dict[str, Any]) -> None:
    asked = recording["request_json"]
    data = json.dumps(asked).encode()
    if (path := REFUSED.get(recording["id"])) is not None:
        with pytest.raises(LLMError) as caught:
            read_request(data)
        assert caught.value.data["path"] == path
        return
    read = read_request(data)
    target = row(model=read.ask.model or "", max_tokens_name="max_completion_tokens")
    made = DIALECT.request(read.ask, target, read.ask.max_tokens, read.stream)
    built = msgspec.json.decode(made.body)
    assert same(built) == same(asked | {"model": asked.get("model") or ""})
    assert made.dropped == []
