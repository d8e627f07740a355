"""What a request needs of a target: capabilities, room for its words, about what it would cost."""

from collections.abc import Callable
from math import inf

from llmd.chat import Ask, FilePart, ImagePart, Message
from llmd.core.choices import Choice, too_dear
from llmd.core.rows import ModelRow
from llmd.core.rules import Capability, Rule

CHARACTERS_A_TOKEN = 4
CHARACTERS_A_TOKEN_MAX = 8  # of long texts: what does not fit then, never does
ANSWER_TOKENS = 1024  # of an answer without a limit, to tell what is cheap


class Needs:
    """What a request needs of a target."""

    def __init__(self, ask: Ask, terms: Rule | None, stream: bool) -> None:
        self._ask = ask
        needs: set[Capability] = set(terms.require) if terms is not None else set()
        if ask.tools:
            needs.add("tools")
        if ask.response_format is not None:
            needs.add("json_schema")
        if ask.reasoning is not None and ask.reasoning.effort != "none" and ask.reasoning.tokens != 0:
            needs.add("reasoning")
        if stream:
            needs.add("streaming")
        if ask.messages is not None and _shows(ask):
            needs.add("vision")
        self._needs = needs
        self._characters = sum(map(len, (ask.prompt or "", ask.system or "", *map(_words, ask.messages or ()))))
        self._fewest_tokens = self._characters // CHARACTERS_A_TOKEN_MAX + (ask.max_tokens or 0)

    @property
    def input_tokens(self) -> int:
        """About so many."""
        return self._characters // CHARACTERS_A_TOKEN

    def price(self, row: ModelRow) -> float:
        """About what it costs there, in millionths of USD."""
        if row.price is None:
            return inf
        rates = row.price.at(self.input_tokens)
        fee = (row.price.request or 0) * 1_000_000
        return self.input_tokens * rates.input + (self._ask.max_tokens or ANSWER_TOKENS) * rates.output + fee

    def met_by(self, choice: Choice) -> bool:
        return self._needs.isdisjoint(choice.lacks) and self._fewest_tokens <= choice.context_tokens

    def unmet(self, choice: Choice) -> str:
        """What this target lacks."""
        lacking = self._needs & choice.lacks
        return f"lacks_{min(lacking)}" if lacking else "context_too_small"

    def too_dear(self, choice: Choice, row: ModelRow, most_usd: Callable[[ModelRow], float | None]) -> str | None:
        """Which of its ceilings this request takes it beyond."""
        dear = too_dear(row, choice.max_cost_per_1k, self.input_tokens)
        if dear is not None or (ceiling := choice.max_cost_usd) is None:
            return dear
        most = most_usd(row)
        return "unpriced" if most is None else "too_expensive" if most > ceiling else None


def _words(message: Message) -> str:
    return message.content if isinstance(message.content, str) else message.text


def _shows(ask: Ask) -> bool:
    return any(
        isinstance(part, ImagePart | FilePart)
        for message in ask.messages or ()
        if not isinstance(message.content, str)
        for part in message.content
    )
