"""The words of llmd's contract: what is asked, what is answered, and what comes in between.

Owns the shapes of `execute` (protocol 1). Knows nothing of providers, sockets or money. Unknown members are refused on
the way in; optional members of what goes out are always there, null where there is nothing to tell.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from llmd.books import Snapshot
from llmd.scalars import AMOUNT_MAX, Amount, Millis, Name, Positive, Token


class Part(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", omit_defaults=True):
    """One part of a message's content."""


class TextPart(Part, frozen=True, tag="text"):
    text: str


class ImagePart(Part, frozen=True, tag="image"):
    media_type: str
    data: str  # base64


class FilePart(Part, frozen=True, tag="file"):
    media_type: str
    data: str  # base64


class ToolCallPart(Part, frozen=True, tag="tool_call"):
    id: str
    name: str
    arguments: dict[str, Any]


class ToolResultPart(Part, frozen=True, tag="tool_result"):
    id: str
    content: str
    error: bool = False


class StatePart(Part, frozen=True, tag="state"):
    """A provider's own words that it wants back, carried unread."""

    provider: str
    data: Any


AnyPart = TextPart | ImagePart | FilePart | ToolCallPart | ToolResultPart | StatePart


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[AnyPart]

    def __post_init__(self) -> None:
        if self.role != "assistant" and not isinstance(self.content, str):
            for part in self.content:
                if isinstance(part, StatePart):
                    raise ValueError("a `state` part belongs to the assistant turn that it came with")

    @property
    def parts(self) -> list[AnyPart]:
        return [TextPart(self.content)] if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """The text of all text parts, joined by newlines."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))


class Tool(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: Name
    parameters: dict[str, Any]  # a JSON Schema
    description: str | None = None


class NamedTool(Struct, frozen=True, forbid_unknown_fields=True):
    name: Name


class Reasoning(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a model may think: an effort or a number of tokens, one of them."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    tokens: Amount | None = None

    def __post_init__(self) -> None:
        if (self.effort is None) == (self.tokens is None):
            raise ValueError("give one of `effort` and `tokens`")


class ResponseFormat(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_schema"):
    name: Name
    schema: dict[str, Any]


class Chat(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What is said to a model, whichever it is."""

    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    system: str | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)] | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    reasoning: Reasoning | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    response_format: ResponseFormat | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give one of `prompt` and `messages`")

    @property
    def turns(self) -> list[Message]:
        """The conversation, `system` first where it is given."""
        turns = self.messages if self.messages is not None else [Message("user", self.prompt or "")]
        return turns if self.system is None else [Message("system", self.system), *turns]


class Ask(Chat, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The params of `execute`: what is said, to whom, and on which terms.

    model            "provider/model", split at the first slash; with `provider`, the model's own name
    timeout_ms       covers queueing too
    stream           a token of the caller's: ask for `llmd.delta` notifications that carry it
    metadata         kept for the caller's own use, never sent upstream
    """

    task_type: Name | None = None
    labels: dict[str, str] = {}
    model: Name | None = None
    provider: Name | None = None
    fit: Literal["refuse", "clamp"] | None = None
    wait_ms: Millis | None = None
    budget: Name | None = None
    stream: Token | None = None
    timeout_ms: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)] = 600_000
    idempotency_key: Token | None = None
    metadata: dict[str, Any] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.provider is not None and self.model is None:
            raise ValueError("`provider` goes with `model`")


class ManyAsk(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The params of `execute_many`: calls that run together, all at once unless told otherwise.

    `budget` is of those that name none; `timeout_ms` and the token `stream` are of all together.
    """

    calls: Annotated[list[Ask], Meta(min_length=1)]
    budget: Name | None = None
    max_concurrency: Positive | None = None
    timeout_ms: Annotated[int, Meta(ge=1, le=AMOUNT_MAX)] = 600_000
    stream: Token | None = None


class Relayed(Ask, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An Ask that came in OpenAI's words.

    more  members that llmd has no words for, by their paths ("user", "messages[1].name"): for who speaks the same
    """

    more: dict[str, Any] = {}


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens: cached ones counted in `input_tokens`, reasoning in `output_tokens`.

    exact is false where the provider sent no usage.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    exact: bool = True


class ToolCall(Struct, frozen=True):
    id: str
    name: str
    arguments: dict[str, Any]


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "other"]


class Cost(Struct, frozen=True):
    nano_usd: int


class Attempt(Struct, frozen=True):
    """One physical try: `outcome` is "ok" or the kind of its error, `ms` how long it took."""

    provider: str
    model: str
    outcome: str
    ms: int


class Route(Struct, frozen=True):
    """`rule` is the index of the routing rule that chose, null where none did."""

    rule: int | None
    attempts: list[Attempt]


class Completion(Struct, frozen=True, kw_only=True):
    """The result of `execute`; every member is always present."""

    text: str
    finish_reason: FinishReason
    provider: str
    model: str
    tool_calls: list[ToolCall]
    reasoning: str | None
    message: Message
    usage: Usage
    cost: Cost | None
    budget: Snapshot | None
    route: Route
    dropped: list[str]
    latency_ms: int
    provider_request_id: str | None
    clamped_max_tokens: int | None
    replayed: bool


class ErrorObject(Struct, frozen=True):
    code: int
    message: str
    data: dict[str, Any]


class Ended(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How one of many calls has ended: with one of the two."""

    ok: Completion | None = None
    error: ErrorObject | None = None


class ManyCompletions(Struct, frozen=True):
    """The result of `execute_many`: `results` in the order of the calls; `usage` and `cost` are those of all together.

    cost  null where that of one of them is not known
    """

    results: list[Ended]
    usage: Usage
    cost: Cost | None


class ToolCallDelta(Struct, frozen=True, omit_defaults=True):
    """A piece of the tool call at `index`; `arguments` is text to append."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str | None = None


class Delta(Struct, frozen=True, omit_defaults=True):
    """A piece of an answer: exactly one of its members is set."""

    text: str | None = None
    reasoning: str | None = None
    tool_call: ToolCallDelta | None = None


class DeltaParams(Struct, frozen=True, omit_defaults=True):
    """The params of an `llmd.delta` notification; `seq` counts from 0 without gaps."""

    stream: str
    seq: int
    index: int | UnsetType = UNSET
    text: str | None = None
    reasoning: str | None = None
    tool_call: ToolCallDelta | None = None


class DoneParams(Struct, frozen=True):
    """The params of an `llmd.done` notification: the call at `index` has ended, "ok" or with an error of this kind."""

    stream: str
    index: int
    outcome: str
