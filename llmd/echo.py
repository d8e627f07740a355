"""The built-in provider: says what it heard. Needs no key and no network, and counts words as tokens."""

import re

import anyio
import anyio.lowlevel
import msgspec
from msgspec import Struct

from llmd.catalog import ProviderRow
from llmd.chat import Chat, Delta, Message, Usage
from llmd.core.outcomes import Answer, Failure, Outcome
from llmd.core.rows import ModelRow
from llmd.dialects.base import Emit, HttpCall
from llmd.dialects.expressing import expressible

WORDS_A_TURN = 100

_WORD = re.compile(r"\s*\S+")


class _Heard(Struct):
    turns: list[Message]
    max_tokens: int | None


_decode_heard = msgspec.json.Decoder(_Heard).decode


class EchoProvider:
    """Answers with the last user message, word by word in a stream; `latency_ms` and `fail` of its row break it."""

    def __init__(self, row: ProviderRow) -> None:
        self._latency_s = row.latency_ms / 1000
        self._fail = row.fail

    def request(self, chat: Chat, row: ModelRow, max_tokens: int | None, stream: bool) -> HttpCall:
        body = msgspec.json.encode(_Heard(chat.turns, max_tokens))
        sampling = (
            "temperature",
            "top_p",
            "stop",
            "seed",
            "reasoning",
            "tools",
            "tool_choice",
            "response_format",
        )
        dropped = [name for name in sampling if getattr(chat, name) is not None]
        dropped += [name for name in expressible(chat, row)[1] if name not in dropped]
        return HttpCall(row=row, url="echo:", headers={}, body=body, stream=stream, dropped=dropped)

    async def count(self, call: HttpCall) -> int | None:
        return None

    async def send(self, call: HttpCall, emit: Emit | None) -> Outcome:
        if self._latency_s:
            await anyio.sleep(self._latency_s)
        if self._fail is not None:
            return Failure(kind=self._fail, message="the echo provider is configured to fail", billed="no")
        heard = _decode_heard(call.body)
        said = next((turn.text for turn in reversed(heard.turns) if turn.role == "user"), "")
        words = _WORD.findall(said.rstrip())  # white space that no word ends would be tried from each of its characters
        kept = words[: heard.max_tokens] if heard.max_tokens is not None else words
        cut = len(kept) < len(words)
        text = "".join(kept) if cut else said
        if emit is not None:
            at = 0
            pieces = kept or ([text] if text else [])  # white space alone is no word, but is text
            for number, piece in enumerate(pieces, 1):
                end = at + len(piece) if number < len(pieces) else len(text)
                await emit(Delta(text=text[at:end]))
                at = end
                if number % WORDS_A_TURN == 0:
                    await anyio.lowlevel.checkpoint()
        asked = sum(len(turn.text.split()) for turn in heard.turns)
        return Answer(
            text=text,
            finish_reason="length" if cut else "stop",
            usage=Usage(input_tokens=asked, output_tokens=len(kept), total_tokens=asked + len(kept)),
        )
