"""Makes llmd/prices.json, the table of prices and context sizes, from the data of the `genai-prices` package (MIT).

It runs where that package is, which need not be where llmd is:
  python tests/price_table.py > llmd/prices.json
"""

import json
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

PROVIDERS = (
    "anthropic",
    "azure",
    "cerebras",
    "deepseek",
    "fireworks",
    "google",
    "groq",
    "mistral",
    "openai",
    "openrouter",
    "perplexity",
    "together",
    "x-ai",
)
RATES = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
}
REQUESTS = "requests_kcount"
# What llmd does not ask for: searches, audio, caching for an hour. A model with a rate of any other kind is left out,
# since what it costs could not be told.
UNASKED = re.compile("web_searches|storage_searches|audio|cache_write_1h|cache_image|input_video|output_video")


def names(match: Any) -> dict[str, list[str]]:
    """Which names a clause is about, in lower case: those it lists, their beginnings, their parts, or expressions."""
    kind = type(match).__name__
    if kind == "ClauseOr":
        merged: dict[str, list[str]] = {}
        for clause in match.or_:
            for how, texts in names(clause).items():
                merged.setdefault(how, []).extend(texts)
        return merged
    if kind == "ClauseEquals":
        return {"names": [match.equals.lower()]}
    if kind == "ClauseStartsWith":
        return {"starts": [match.starts_with.lower()]}
    if kind == "ClauseContains":
        return {"parts": [match.contains.lower()]}
    return {"expressions": [expression(match)]}


def expression(match: Any) -> str:
    kind = type(match).__name__
    if kind == "ClauseRegex":
        return str(match.regex)
    if kind == "ClauseEndsWith":
        return f"{re.escape(match.ends_with.lower())}$"
    if kind == "ClauseAnd":
        return "^" + "".join(f"(?=.*(?:{expression(clause)}))" for clause in match.and_)
    if kind == "ClauseOr":
        return "|".join(f"(?:{expression(clause)})" for clause in match.or_)
    ((how, (text,)),) = names(match).items()
    return {"names": "^{}$", "starts": "^{}", "parts": "{}"}[how].format(re.escape(text))


def current(prices: Any, now: datetime) -> list[Any]:
    """The prices that hold today: of those by the hour of the day, all."""
    if not isinstance(prices, list):
        return [prices]
    held = [prices[0].prices]
    for priced in prices:
        if type(priced.constraint).__name__ == "TimeOfDateConstraint":
            held.append(priced.prices)
        elif priced.constraint is None or priced.constraint.active(now):
            held = [priced.prices]
    return held


def price(prices: list[Any]) -> dict[str, Any] | None:
    """Of several prices the dearest; None where llmd could not tell what a call costs."""
    rates: dict[int, dict[str, float]] = {0: {}}
    fee = 0.0
    for one in prices:
        given = {name: value for name, value in vars(one).items() if value is not None and not UNASKED.search(name)}
        if not given.keys() - {REQUESTS} <= RATES.keys() or not {"input_mtok", "output_mtok"} <= given.keys():
            return None
        fee = max(fee, float(given.pop(REQUESTS, 0)) / 1000)
        for name, value in given.items():
            steps = {0: getattr(value, "base", value)} | {
                tier.start: tier.price for tier in getattr(value, "tiers", [])
            }
            for above, rate in steps.items():
                tier = rates.setdefault(above, {})
                tier[RATES[name]] = max(tier.get(RATES[name], 0), float(rate))
    base = rates.pop(0)
    tiers, known = [], base
    for above, more in sorted(rates.items()):
        known = {**known, **more}
        tiers.append({"above": above, **known})
    return {**base, **({"request": fee} if fee else {}), **({"tiers": tiers} if tiers else {})}


def table(providers: list[Any], now: datetime) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for provider in providers:
        if provider.id not in PROVIDERS:
            continue
        rows = []
        for model in provider.models:
            row: dict[str, Any] = {**names(model.match), "price": price(current(model.prices, now))}
            if model.context_window:
                row["context_tokens"] = model.context_window
            rows.append(row)
        found[provider.id] = rows
    return dict(sorted(found.items()))


def main() -> None:
    from genai_prices.data import providers

    now = datetime.now(UTC)
    found = table(providers, now)
    if missing := set(PROVIDERS) - found.keys():
        raise SystemExit(f"the data has no {', '.join(sorted(missing))} any more")
    head = {"source": f"genai-prices {version('genai-prices')} (MIT)", "as_of": f"{now:%Y-%m-%d}"}
    lines = [f'{json.dumps(head)[:-1]}, "providers": {{']
    for number, (name, rows) in enumerate(found.items()):
        lines += [f"{json.dumps(name)}: [", ",\n".join(json.dumps(row) for row in rows)]
        lines.append("]" if number == len(found) - 1 else "],")
    sys.stdout.write("\n".join([*lines, "}}\n"]))


if __name__ == "__main__":
    main()
