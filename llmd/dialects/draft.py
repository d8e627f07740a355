"""An answer in the making: what a provider has said so far, put together in llmd's words.

Each dialect has a draft of its own, which reads the provider's words; this is what they have in common.
"""

from decimal import Decimal
from math import ceil
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llmd.chat import Delta, FinishReason, ToolCall, ToolCallDelta, Usage
from llmd.core.outcomes import Answer, Failure, Outcome
from llmd.dialects.base import Headers
from llmd.dialects.events import Event
from llmd.dialects.refusals import read_stream_error, request_id
from llmd.scalars import AMOUNT_MAX

TICKS_A_NANO_USD = 10  # xAI bills in ticks of 1e-10 USD


class _PartialCall(Struct):
    id: str = ""
    name: str = ""
    arguments: list[str] = []


class Draft:
    """Reads one response, event by event or as one body. What it reads with may raise: then it is no such answer.

    failure  what has become of it, once that is set
    begun    whether anything of an answer has come
    ended    whether its end mark has: all that may follow is the end of the response
    """

    whole_name = "an answer"  # what a body that cannot be read is not
    part_name = "answer"  # what it lacks where nothing of an answer has come

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.failure: Failure | None = None
        self.begun = False
        self.ended = False
        self.usage: Usage | None = None
        self.cost_nano_usd: int | None = None
        self.request_id = request_id(headers)
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusals: list[str] = []
        self._calls: dict[int, _PartialCall] = {}

    # -- what a dialect says in its own way ---------------------------------------------------------------------------

    def take(self, event: Event) -> list[Delta]:
        """One event of a stream."""
        raise NotImplementedError

    def take_body(self, body: bytes) -> None:
        """A whole response."""
        raise NotImplementedError

    def may_end(self) -> bool:
        """Whether a stream that ends here was whole."""
        return self.ended

    def finish(self) -> FinishReason:
        raise NotImplementedError

    def state(self) -> Any:
        """What the provider wants back in the next request, None if nothing."""
        return None

    # -- parts --------------------------------------------------------------------------------------------------------

    def say(self, text: str | None) -> list[Delta]:
        if not text:
            return []
        self._texts.append(text)
        return [Delta(text=text)]

    def think(self, text: str | None) -> list[Delta]:
        if not text:
            return []
        self._reasoning.append(text)
        return [Delta(reasoning=text)]

    def say_rest(self, text: str) -> list[Delta]:
        """What of this, which is the whole text, has not been said yet. What was said in other words stands."""
        said = "".join(self._texts)
        return self.say(text[len(said) :]) if text.startswith(said) else []

    def think_rest(self, text: str) -> list[Delta]:
        thought = "".join(self._reasoning)
        return self.think(text[len(thought) :]) if text.startswith(thought) else []

    def refuse(self, text: str | None) -> None:
        if text:
            self._refusals.append(text)

    def call(
        self, index: int, identifier: str | None, name: str | None, arguments: str | dict[str, Any] | None
    ) -> list[Delta]:
        """A tool call, or the next piece of the one at `index`."""
        first = index not in self._calls
        known = self._calls.setdefault(index, _PartialCall())
        text = msgspec.json.encode(arguments).decode() if isinstance(arguments, dict) else arguments or ""
        known.id = identifier or known.id
        known.name = name or known.name
        known.arguments.append(text)
        delta = ToolCallDelta(
            index=index,
            id=known.id if first and known.id else None,
            name=known.name if first and known.name else None,
            arguments=text or None,
        )
        return [Delta(tool_call=delta)]

    def call_rest(self, index: int, arguments: str) -> list[Delta]:
        """What of these arguments, which are all of the call at `index`, has not been told yet."""
        told = "".join(self._calls[index].arguments)
        rest = arguments[len(told) :] if arguments.startswith(told) else ""
        return self.call(index, None, None, rest) if rest else []

    def id_of(self, index: int) -> str:
        return self._calls[index].id or f"call_{index}"

    @property
    def calls(self) -> int:
        return len(self._calls)

    @property
    def last_call(self) -> int:
        return max(self._calls)

    def invalid(self, message: str, usage: Usage | None = None) -> Failure:
        return Failure(
            kind="upstream_invalid", message=message, http_status=200, request_id=self.request_id, usage=usage
        )

    def broken_off(self, what: str) -> Failure:
        """Its connection is to blame, and not what was asked: another try may do better."""
        return replace(self.invalid(f"the provider's {what} broke off before its end"), retryable=True)

    def fail(self, error: Any) -> None:
        """By an `error` member of the answer; what it says of its cost with that is what the call has cost."""
        self.failure = self.with_cost(read_stream_error(error, self.headers))

    def with_cost(self, failure: Failure) -> Failure:
        return replace(failure, usage=self.usage, cost_nano_usd=self.cost_nano_usd)

    @staticmethod
    def arguments(text: str) -> dict[str, Any] | None:
        """Those of a tool call; None where they are no JSON object."""
        if not text.strip():
            return {}
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        return {} if value is None else value if isinstance(value, dict) else None

    def outcome(self) -> Outcome:
        if self.failure is not None:
            return self.failure
        finish = "refusal" if self._refusals else self.finish()
        calls = []
        for index, partial in sorted(self._calls.items()):
            text = "".join(partial.arguments)
            arguments = self.arguments(text)
            half = finish == "length" and index == self.last_call and (arguments is None or not text)
            if half:  # it ended within this call, and what it had written is paid for
                continue
            if arguments is None:
                return self.with_cost(self.invalid("the model's tool call has arguments that are not JSON"))
            calls.append(ToolCall(self.id_of(index), partial.name, arguments))
        return Answer(
            text="".join(self._texts),
            finish_reason=finish,
            tool_calls=calls,
            reasoning="".join(self._reasoning) or None,
            refusal="".join(self._refusals) or None,
            usage=self.usage,
            cost_nano_usd=self.cost_nano_usd,
            request_id=self.request_id,
            state=self.state(),
        )


def amount(tokens: int | None) -> int:
    """A count as a provider tells it, within what llmd may say."""
    if tokens is None or tokens < 0:
        return 0
    return tokens if tokens < AMOUNT_MAX else AMOUNT_MAX  # min() is a call, and chunks come by thousands


def nano_usd(usd: Any) -> int | None:
    """A cost as a provider tells it, rounded up; None where it is no number."""
    if isinstance(usd, bool) or not isinstance(usd, int | float):
        return None
    return amount(ceil(min(Decimal(str(usd)), Decimal(AMOUNT_MAX)) * 10**9))
