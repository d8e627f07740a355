"""Requests to Ollama: those that are recorded, and others made by hand from the project's API documentation."""

from typing import Any, NamedTuple

from tests.dialects.handmade import assistant, call, result, text, tool, user, without

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

REQUESTS: dict[str, dict[str, Any]] = {
    "4fb90bf183c1c761": {"prompt": "Why is the sky blue? Answer in one sentence.", "temperature": 0, "seed": 42},
    "e18083bcb2e1cc90": {"prompt": "Why is the sky blue?"},
}


def same(request: dict[str, Any]) -> dict[str, Any]:
    """No tools are as good as an empty list of them."""
    return request if request.get("tools") else without(request, "tools")


class Documented(NamedTuple):
    asked: dict[str, Any]
    said: dict[str, Any]
    model: str = "llama3.2"
    stream: bool = False


WEATHER = {"name": "get_weather", "description": "Get the weather in a city", "parameters": CITY}
SKY = "why is the sky blue?"

DOCUMENTED = {
    "text, streamed": Documented({"prompt": SKY}, {"messages": [{"role": "user", "content": SKY}]}, stream=True),
    "with a history": Documented(
        {
            "messages": [
                user(SKY),
                assistant("due to rayleigh scattering."),
                user("how is that different than mie scattering?"),
            ]
        },
        {
            "messages": [
                {"role": "user", "content": SKY},
                {"role": "assistant", "content": "due to rayleigh scattering."},
                {"role": "user", "content": "how is that different than mie scattering?"},
            ]
        },
    ),
    "system": Documented(
        {"prompt": "hi", "system": "be brief"},
        {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]},
    ),
    "options": Documented(
        {"prompt": "Hello!", "seed": 101, "temperature": 0, "top_p": 0.9, "stop": ["\n", "user:"], "max_tokens": 100},
        {
            "messages": [{"role": "user", "content": "Hello!"}],
            "options": {"seed": 101, "temperature": 0, "top_p": 0.9, "stop": ["\n", "user:"], "num_predict": 100},
        },
    ),
    "an image": Documented(
        {
            "messages": [
                user(text("what is in this image?"), {"type": "image", "media_type": "image/png", "data": "iVBORw0K"})
            ]
        },
        {"messages": [{"role": "user", "content": "what is in this image?", "images": ["iVBORw0K"]}]},
        model="llava",
    ),
    "a schema": Documented(
        {
            "prompt": "Ollama is 22 years old. Respond using JSON",
            "response_format": {"type": "json_schema", "name": "age", "schema": SCHEMA},
        },
        {
            "messages": [{"role": "user", "content": "Ollama is 22 years old. Respond using JSON"}],
            "format": SCHEMA,
        },
    ),
    "tools": Documented(
        {"prompt": "what is the weather in tokyo?", "tools": [tool("get_weather", CITY, "Get the weather in a city")]},
        {
            "messages": [{"role": "user", "content": "what is the weather in tokyo?"}],
            "tools": [{"type": "function", "function": WEATHER}],
        },
        stream=True,
    ),
    "a tool's result": Documented(
        {
            "messages": [
                user("what is the weather in Toronto?"),
                assistant(call("call_0", "get_weather", city="Toronto")),
                result("call_0", "11 degrees celsius"),
            ],
            "tools": [tool("get_weather", CITY, "Get the weather in a city")],
        },
        {
            "messages": [
                {"role": "user", "content": "what is the weather in Toronto?"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Toronto"}}}],
                },
                {"role": "tool", "content": "11 degrees celsius", "tool_name": "get_weather"},
            ],
            "tools": [{"type": "function", "function": WEATHER}],
        },
    ),
    "not to think": Documented(
        {"prompt": "hi", "reasoning": {"effort": "none"}},
        {"messages": [{"role": "user", "content": "hi"}], "think": False},
        model="qwen3",
    ),
    "to think, by an effort": Documented(
        {"prompt": "hi", "reasoning": {"effort": "medium"}},
        {"messages": [{"role": "user", "content": "hi"}], "think": "medium"},
        model="gpt-oss:20b",
    ),
}
