"""Requests to Anthropic, made by hand from recorded ones."""

from typing import Any

from tests.dialects.handmade import assistant, at, call, result, state, text, tool, user, without

SCHEMA = {"type": "json_schema", "name": "form", "schema": at("output_config", "format", "schema")}


def first_tool(name: str, number: int = 0) -> dict[str, Any]:
    return tool(name, at("tools", number, "input_schema"), at("tools", number, "description"))


WEATHER = "toolu_01DeBjbbqmpp3RkK5ANyNZ8o"
FILE = "toolu_01UHzuh9hCDgj8wZUA6m9ReX"

REQUESTS: dict[str, dict[str, Any]] = {
    "13362f7640739ba0": {"prompt": "Tell me a brief fact about Paris", "max_tokens": 4096},
    "864d2f53f5f8087a": {
        "prompt": "tell me a short joke",
        "system": "You are a helpful assistant",
        "max_tokens": 1024,
    },
    "5e8bc02d5d95feea": {
        "prompt": "When do you use 'whom' instead of 'who'?",
        "temperature": 0,
        "max_tokens": 15,
    },
    "ed8cd3ab0261b7ba": {
        "prompt": "what is 1+1?",
        "system": "just return the number",
        "temperature": 0.5,
        "top_p": 0.5,
        "max_tokens": 300,
    },
    "d9519f22e3c18bd0": {"prompt": "Tell me a joke about OpenTelemetry", "max_tokens": 1024},
    "f6f8d0fce47a788d": {"prompt": "What is 5 + 3?", "reasoning": {"tokens": 1024}, "max_tokens": 64_000},
    "833bafa58e6b2ebc": {
        "messages": [
            user("What is 5 + 3?"),
            assistant(text("5 + 3 = **8**"), state("anthropic", at("messages", 1, "content"))),
            user("Now multiply that by 2"),
        ],
        "reasoning": {"tokens": 1024},
        "max_tokens": 64_000,
    },
    "fe26ae636014d3c8": {"prompt": "What is 2+2?", "reasoning": {"effort": "xhigh"}, "max_tokens": 4096},
    "bdfa67e0cf3df040": {"prompt": "Tell me about London", "response_format": SCHEMA, "max_tokens": 4096},
    "ff907e1a14f6c5e6": {
        "prompt": "Give me info about Sydney including its timezone",
        "tools": [first_tool("get_timezone"), first_tool("final_result", 1)],
        "tool_choice": "required",
        "max_tokens": 4096,
    },
    "c119a0c0c56d7dd9": {
        "prompt": "Say hello in French",
        "tools": [first_tool("structured_output")],
        "tool_choice": {"name": "structured_output"},
        "max_tokens": 4096,
    },
    "7a435f6c58b12fb5": {
        "messages": [
            user("What's the weather in San Francisco?"),
            assistant(call(WEATHER, "get_weather", city="San Francisco")),
            result(WEATHER, "Weather in San Francisco: Sunny, 22°C"),
        ],
        "tools": [first_tool("get_weather")],
        "tool_choice": "auto",
        "max_tokens": 4096,
    },
    "7c92ae212eb74962": {
        "messages": [
            user(at("messages", 0, "content", 0, "text")),
            assistant(text("I'll retrieve the file for you now."), call(FILE, "get_file")),
            result(FILE, "File attached"),
            user(
                {
                    "type": "image",
                    "media_type": "image/jpeg",
                    "data": at("messages", 2, "content", 1, "source", "data"),
                }
            ),
        ],
        "tools": [first_tool("get_file")],
        "tool_choice": "auto",
        "max_tokens": 4096,
    },
    "dcbb33b0b4a1ceae": {
        "messages": [
            user(
                text("Analyze these files"),
                {
                    "type": "image",
                    "media_type": "image/png",
                    "data": at("messages", 0, "content", 1, "source", "data"),
                },
                {
                    "type": "file",
                    "media_type": "application/pdf",
                    "data": at("messages", 0, "content", 2, "source", "data"),
                },
            )
        ],
        "max_tokens": 64_000,
    },
    "bfd211d534720cd8": {
        "messages": [
            user(
                text("What does this text file say?"),
                {"type": "file", "media_type": "text/plain", "data": "RHVtbXkgVFhUIGZpbGUK"},
            )
        ],
        "max_tokens": 4096,
    },
    "ed09d7c5e136c211": {
        "prompt": at("messages", 0, "content"),
        "system": at("system"),
        "stop": ["\nObservation:"],
        "tools": [first_tool("calculator")],
        "max_tokens": 4096,
    },
}


def same(request: dict[str, Any]) -> dict[str, Any]:
    """The request but for what llmd says in its own way."""
    said = dict(request)
    if not said.get("stream"):
        said.pop("stream", None)  # which is not to stream
    said["messages"] = [{**one, "content": content(one["content"])} for one in said["messages"]]
    if "tools" in said:
        said["tools"] = [without(one, "strict") for one in said["tools"]]  # schemas are not enforced on tools
    if "thinking" in said:
        said["thinking"] = without(said["thinking"], "display")  # summarized, or left to the model's usual way
    return said


def content(said: Any) -> Any:
    """A text alone is as good as a list of it, in a message and in a result."""
    if not isinstance(said, list):
        return said
    if len(said) == 1 and said[0]["type"] == "text":
        return said[0]["text"]
    return [block(one) for one in said]


def block(one: dict[str, Any]) -> dict[str, Any]:
    if one["type"] != "tool_result":
        return one
    said = without(one, "is_error") if not one.get("is_error") else dict(one)
    return {**said, "content": content(said["content"])}
