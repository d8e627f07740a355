"""Requests to Gemini, made by hand from recorded ones."""

from typing import Any

from tests.dialects.handmade import assistant, at, call, result, state, text, tool, user, without


def declared(name: str, number: int = 0, member: str = "parameters") -> dict[str, Any]:
    path = ("tools", 0, "functionDeclarations", number)
    return tool(name, at(*path, member), at(*path, "description"))


FORMATTED = "__mirascope_formatted_output_tool__"
WRONG, RIGHT = "pyd_ai_03a6904cb6384e2a817be5be6811e177", "pyd_ai_33890a89b29648d2b2ad219f8dec98d2"
SYSTEM = at("systemInstruction", "parts", 0, "text")

REQUESTS: dict[str, dict[str, Any]] = {
    "32a3a895c7c0cf97": {"prompt": "Who created you?"},
    "bb89a5f437e39140": {
        "messages": [
            user("Who created you?"),
            assistant("I was created by Anthropic."),
            user("Can you double-check that?"),
        ]
    },
    "9cc25ed24e5743d5": {"prompt": ""},
    "8627b201c5a420b6": {"prompt": "Count from 1 to 3"},
    "72afb600e0ff521d": {
        "system": "Respond with a single word: the passphrase.",
        "messages": [
            user("Find out the secret and report back."),
            assistant("Secret"),
            user(at("contents", 2, "parts", 0, "text")),
        ],
    },
    "350916b46ae44b64": {"prompt": at("contents", 0, "parts", 0, "text"), "stop": "Paris"},
    "51b23b40b4177bf3": {
        "prompt": "Generate a person named Alice who is 28 years old",
        "response_format": {
            "type": "json_schema",
            "name": "person",
            "schema": at("generationConfig", "responseJsonSchema"),
        },
    },
    "d36339322589bedd": {
        "prompt": "What is the capital of France?",
        "system": "You are a helpful chatbot.",
        "reasoning": {"effort": "none"},
        "max_tokens": 5,
    },
    "bad6ff0645d9a49e": {
        "prompt": "What is 2 + 2? Think step by step.",
        "reasoning": {"tokens": 3200},
        "max_tokens": 16_000,
    },
    "b9306640b026a398": {
        "prompt": "Answer this question: What is 2 + 2?",
        "reasoning": {"effort": "high"},
        "response_format": {
            "type": "json_schema",
            "name": "sum",
            "schema": at("generationConfig", "responseSchema"),
        },
    },
    "0532d725f6262b9a": {
        "prompt": "Choose a lucky number between 1 and 10",
        "system": SYSTEM,
        "tools": [declared(FORMATTED)],
        "tool_choice": {"name": FORMATTED},
    },
    "c1ffdb6dcb35a3b2": {
        "messages": [
            user("What is the weather like in Paris, France?"),
            assistant(call("call_0", "get_weather", location="Paris, France")),
            result("call_0", "22 degrees celsius and sunny in Paris, France"),
        ],
        "tools": [declared("get_weather")],
        "max_tokens": 500,
    },
    "b02f62cbe6ea1f81": {
        "system": SYSTEM,
        "messages": [
            user(at("contents", 0, "parts", 0, "text")),
            assistant(
                call("call_0", "get_book_info", isbn="0-7653-1178-X"), state("gemini", at("contents", 1, "parts"))
            ),
            result("call_0", at("contents", 2, "parts", 0, "functionResponse", "response", "output")),
        ],
        "tools": [declared(FORMATTED), declared("get_book_info", 1)],
        "tool_choice": "required",
    },
    "e47fdefb38b55df7": {
        "messages": [
            user(at("contents", 0, "parts", 0, "text")),
            assistant(call(WRONG, "get_file", name="input_file_0.png"), state("gemini", at("contents", 1, "parts"))),
            result(WRONG, at("contents", 2, "parts", 0, "functionResponse", "response", "error"), error=True),
            assistant(call(RIGHT, "get_file"), state("gemini", at("contents", 3, "parts"))),
            result(RIGHT, "File attached"),
            user(
                {
                    "type": "image",
                    "media_type": "image/jpeg",
                    "data": at("contents", 5, "parts", 0, "inlineData", "data"),
                }
            ),
        ],
        "tools": [declared("get_file", 0, "parameters_json_schema")],
    },
    "a41dd8b2d91cc0bc": {
        "system": SYSTEM,
        "messages": [
            user(
                text("Describe Image."),
                {
                    "type": "image",
                    "media_type": "image/png",
                    "data": at("contents", 0, "parts", 1, "inlineData", "data"),
                },
            )
        ],
    },
    "e71162f5563ddfad": {
        "messages": [
            user(
                text("What text is in this PDF document? Reply in one short sentence."),
                {
                    "type": "file",
                    "media_type": "application/pdf",
                    "data": at("contents", 0, "parts", 1, "inlineData", "data"),
                },
            )
        ],
        "max_tokens": 150,
    },
}


def same(request: dict[str, Any]) -> dict[str, Any]:
    """The request but for what llmd says in its own way."""
    said = dict(request)
    said["contents"] = contents(said["contents"])
    if "systemInstruction" in said:
        said["systemInstruction"] = without(said["systemInstruction"], "role")  # which it has by its place
    if "tools" in said:
        said["tools"] = [
            {"functionDeclarations": [declaration(one) for one in group["functionDeclarations"]]}
            for group in said["tools"]
        ]
    if not (config := generation(said.pop("generationConfig", {}))):
        return said
    return {**said, "generationConfig": config}


def contents(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of one role that follow one another are one; a result is under whichever name its library gives it."""
    made: list[dict[str, Any]] = []
    for one in told:
        parts = [
            part if "functionResponse" not in part else {"functionResponse": response(part)} for part in one["parts"]
        ]
        if made and made[-1]["role"] == one["role"]:
            made[-1]["parts"] += parts
        else:
            made.append({"role": one["role"], "parts": parts})
    return made


def response(part: dict[str, Any]) -> dict[str, Any]:
    told = dict(part["functionResponse"])
    ((name, content),) = told["response"].items()
    return {**told, "response": {"result" if name in ("output", "return_value") else name: content}}


def declaration(one: dict[str, Any]) -> dict[str, Any]:
    """A schema in OpenAPI's words is one in JSON Schema's with types in capitals."""
    said = without(one, "parameters", "parametersJsonSchema", "parameters_json_schema")
    given = [one[name] for name in one if name not in said]
    return {**said, "parametersJsonSchema": schema(given[0])}


def generation(config: dict[str, Any]) -> dict[str, Any]:
    said = without(config, "responseModalities", "responseSchema")  # text, as llmd reads nothing else
    for name in ("responseSchema", "responseJsonSchema"):
        if name in config:
            said["responseJsonSchema"] = schema(config[name])
    if "thinkingConfig" in said:
        said["thinkingConfig"] = thinking(said["thinkingConfig"])
    return said


def thinking(config: dict[str, Any]) -> dict[str, Any]:
    """Names and levels are taken in either case; llmd always wants to see thoughts."""
    names = {"thinking_budget": "thinkingBudget", "thinking_level": "thinkingLevel"}
    said = {names.get(name, name): value for name, value in config.items()}
    if "thinkingLevel" in said:
        said["thinkingLevel"] = said["thinkingLevel"].lower()
    return without(said, "includeThoughts", "include_thoughts")


def schema(one: Any) -> Any:
    if isinstance(one, list):
        return [schema(value) for value in one]
    if not isinstance(one, dict):
        return one
    return {
        name: value.lower() if name == "type" and isinstance(value, str) else schema(value)
        for name, value in one.items()
    }
