"""Requests to OpenAI's Responses and to those who have them too, made by hand from recorded ones."""

from typing import Any

from tests.dialects.handmade import assistant, at, call, result, state, text, tool, user, without


def first_tool(name: str, description: Any = None) -> dict[str, Any]:
    return tool(name, at("tools", 0, "parameters"), description or at("tools", 0, "description"))


FORMATTED = "__mirascope_formatted_output_tool__"
CAPITAL, LANGUAGE = "call_ALAJMWK9buNN7RXxxXbECcHa", "call-07321382-64c1-4962-b40e-e0ee373010c7-0"
WEATHER = "call_kOQZ6ugCR9mv9T22cullWbcx"

REQUESTS: dict[str, dict[str, Any]] = {
    "f10af618646eeec7": {"prompt": "Say this is a test", "system": "You are a helpful assistant."},
    "982992b1c4f4682f": {"prompt": "List all U.S. states.", "max_tokens": 50},
    "422e14bb51767b01": {"prompt": "Count from 1 to 3", "temperature": 0},
    "b82db02153d8570e": {
        "system": "You are a helpful assistant.",
        "messages": [
            user("Who won the world series in 2020?"),
            assistant("The Los Angeles Dodgers won the World Series in 2020."),
            user("Where was it played?"),
        ],
        "top_p": 0.9,
        "max_tokens": 100,
    },
    "535e85333990a606": {
        "system": "You are a helpful assistant.",
        "messages": [
            user("Hello, can you help me?"),
            assistant("Of course! How can I help you?"),
            user("What is the weather like?"),
        ],
    },
    "fbd370db3468c6a5": {
        "prompt": "I go by Alex. 42 years on this planet and counting.",
        "response_format": {
            "type": "json_schema",
            "name": "structured_data",
            "schema": at("text", "format", "schema"),
        },
    },
    "4e0bbc180e9f206b": {
        "prompt": at("input", 1, "content"),
        "system": "Use parallel tool calling.",
        "tools": [first_tool("secret_retrieval_tool")],
    },
    "d64c149c35ce3c0d": {
        "prompt": "What's the weather in San Francisco?",
        "system": at("input", 0, "content", 0, "text"),
        "tools": [first_tool("get_weather")],
        "tool_choice": "auto",
    },
    "f0cb91f514b80bbf": {
        "system": at("input", 0, "content"),
        "messages": [
            user("Choose a lucky number between 1 and 10"),
            assistant('{"output": 7}'),
            user("Ok, now choose a different lucky number"),
        ],
        "tools": [first_tool(FORMATTED)],
        "tool_choice": {"name": FORMATTED},
    },
    "5237237284b8cffa": {
        "messages": [
            user("What's the weather in Toronto?"),
            assistant(call(WEATHER, "get_weather", location="Toronto")),
            result(WEATHER, "Weather in Toronto: 72°F, sunny"),
        ],
        "tools": [first_tool("get_weather")],
    },
    "044dfa2ed62308d3": {
        "prompt": "What is 1231 * 2331? Use the multiply tool.",
        "reasoning": {"effort": "low"},
        "tools": [first_tool("multiply")],
    },
    "aa32a3a8bd111f8b": {
        "system": at("instructions"),
        "messages": [
            user("What is the capital of PotatoLand?"),
            assistant(
                call(CAPITAL, "get_capital", country="PotatoLand"),
                state("openai", [at("input", 1), at("input", 2), at("input", 3)]),
            ),
            result(CAPITAL, "Potato City"),
        ],
        "tools": [tool("get_capital", at("tools", 0, "parameters"))],
        "tool_choice": "auto",
    },
    "cce6a7e14b283e03": {
        "messages": [
            user("What's the best language to learn?"),
            assistant(call(LANGUAGE, "best_language_to_learn"), state("xai", [at("input", 1), at("input", 2)])),
            result(LANGUAGE, "Ruby"),
        ],
        "tools": [first_tool("best_language_to_learn")],
    },
    "ec5c1dd9a29bdf98": {
        "system": at("instructions"),
        "messages": [
            user(
                text(at("input", 0, "content", 0, "text")),
                {
                    "type": "file",
                    "media_type": "application/pdf",
                    "data": at("input", 0, "content", 1, "file_data", prefix="data:application/pdf;base64,"),
                },
            )
        ],
    },
}


def same(request: dict[str, Any]) -> dict[str, Any]:
    """The request but for what llmd says in its own way."""
    said = without(request, "store", "include")  # llmd has nothing stored, and wants sealed thoughts
    said = without(said, "service_tier", "user")  # for which `execute` has no words
    for name in ("stream", "tools"):
        if not said.get(name):
            said.pop(name, None)  # nothing is as good
    items = said["input"] if isinstance(said["input"], list) else [{"role": "user", "content": said["input"]}]
    items = [item(one) for one in items]
    if items[0].get("role") in ("system", "developer"):  # which are instructions
        said["instructions"] = items.pop(0)["content"][0]["text"]
    said["input"] = items
    if "reasoning" in said:
        said["reasoning"] = without(said["reasoning"], "summary")  # llmd always wants to see it
    if "tools" in said:
        said["tools"] = [declaration(one) for one in said["tools"]]
    return said


def declaration(one: dict[str, Any]) -> dict[str, Any]:
    """Schemas are not enforced on tools; null is as good as nothing."""
    return {name: value for name, value in one.items() if name != "strict" and value is not None}


def item(one: dict[str, Any]) -> dict[str, Any]:
    """A text is a list of it; what is sent back needs no ids but those of calls."""
    said = without(one, "id", "status")
    if said.get("type") == "message":
        del said["type"]
    if isinstance(said.get("content"), str):
        kind = "output_text" if said["role"] == "assistant" else "input_text"
        said["content"] = [{"type": kind, "text": said["content"]}]
    if "content" in said:
        said["content"] = [without(part, "filename") for part in said["content"]]  # llmd knows none
    return said
