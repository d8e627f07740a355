"""Trees and statements as a person sees them: bars that do not lie, lines that fit, text that steers no terminal."""

from datetime import UTC
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.books import UNITS
from llmd.cli.budget_drawing import BLOCKS, PLAIN, amounts, cells, exact, glyphs, short, statement, tree

NOTHING = dict.fromkeys(UNITS, 0)


def budget(name: str, *below: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A Branch as the daemon answers it, with these members."""
    plain: dict[str, Any] = {"id": name, "parent": None, "label": None, "state": "open", "window": None}
    plain |= {"limits": {}, "guarantee": {}, "available": {}, "enforcement": "strict", "below": list(below)}
    filled = {key: {**NOTHING, **members.pop(key, {})} for key in ("settled", "held", "uncertain", "overrun")}
    return plain | filled | members


def tokens(limit: int) -> dict[str, int]:
    return {"total_tokens": limit}


def drawn(*roots: dict[str, Any], width: int | None = None, plain: bool = False) -> list[str]:
    return [line.plain for line in tree(roots, PLAIN if plain else BLOCKS, width)]


FAMILY = budget(
    "b-1",
    budget(
        "b-2",
        budget("b-3", settled=tokens(200), uncertain=tokens(20)),
        label="planner",
        limits=tokens(1000),
        guarantee=tokens(1000),
        settled=tokens(990),
    ),
    budget("b-4", limits=tokens(1000), settled=tokens(10), held=tokens(490), state="draining", overrun=tokens(5)),
    label="agents",
    limits={"total_tokens": 4000, "nano_usd": 500_000_000},
    settled={"total_tokens": 1200, "nano_usd": 12_300_000},
    held=tokens(500),
    window="day",
    enforcement="estimate",
    available={"total_tokens": 300, "nano_usd": 487_700_000, "requests": None},
)


def test_a_family_is_drawn_as_a_tree_with_its_bars_figures_and_remarks() -> None:
    assert drawn(FAMILY) == [
        "budget                                  tokens                         USD",
        "agents  b-1       ██████▒▒░░░░░░░░░░░░  1.7k/4k  █░░░░░░░░░░░░░░░░░░░  $0.0123/$0.50  "
        "per day; estimate; available 300 tokens",
        "├─ planner  b-2   ███████████████████░  990/1k                         $0             guarantee 1k tokens",
        "│  └─ b-3                               200                            $0             uncertain 20 tokens",
        "└─ b-4  draining  █▒▒▒▒▒▒▒▒▒░░░░░░░░░░  500/1k                         $0             overrun 5 tokens",
    ]


def test_without_the_blocks_it_is_drawn_in_ascii() -> None:
    lines = drawn(FAMILY, plain=True)
    assert "".join(lines).isascii()
    assert lines[1].startswith("agents  b-1       ######==............  1.7k/4k")
    assert [line[:7] for line in lines[2:]] == ["|- plan", "|  `- b", "`- b-4 "]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", BLOCKS), ("cp437", BLOCKS), ("ascii", PLAIN), ("latin-1", PLAIN), ("no such encoding", PLAIN)],
)
def test_the_blocks_are_used_where_the_encoding_has_them(encoding: str, expected: object) -> None:
    assert glyphs(encoding) is expected


def test_budgets_without_any_limit_show_their_tokens_and_no_bar() -> None:
    assert drawn(budget("b-1", settled=tokens(1234))) == ["budget  tokens", "b-1     1.2k"]


def test_no_budgets_at_all_is_said() -> None:
    assert drawn() == ["there are no budgets"]


def test_several_roots_stand_one_below_the_other() -> None:
    assert [line[:9] for line in drawn(budget("b-1", budget("b-2")), budget("b-3"))[1:]] == [
        "b-1     0",
        "└─ b-2  0",
        "b-3     0",
    ]


def test_what_is_short_of_the_free_part_is_told_unless_nothing_can_be_had_any_more() -> None:
    short_of = {"limits": tokens(1000), "settled": tokens(100), "available": tokens(899)}
    assert drawn(budget("b-1", **short_of))[1].endswith("available 899 tokens")
    assert "available" not in drawn(budget("b-1", **short_of | {"available": tokens(900)}))[1]
    assert "available" not in drawn(budget("b-1", **short_of, state="draining"))[1]


# -- width ------------------------------------------------------------------------------------------------------------


def test_the_bars_give_way_first_then_the_remarks_then_the_names() -> None:
    roomy = drawn(FAMILY, width=110)
    assert "██▒░░" in roomy[1]
    assert roomy[1].endswith("available 300 tokens")
    without_bars = drawn(FAMILY, width=90)
    assert "░" not in "".join(without_bars)
    assert without_bars[1].endswith("available 300 tokens")
    short_remarks = drawn(FAMILY, width=60)
    assert short_remarks[1] == "agents  b-1       1.7k/4k  $0.0123/$0.50  per day; estimate…"
    short_names = drawn(FAMILY, width=44)
    assert short_names[2] == "├─ planne…  990/1k   $0             guarant…"


@given(width=st.integers(45, 300), label=st.text(max_size=12), plain=st.booleans())
def test_every_line_fits_the_width_that_there_is(width: int, label: str, plain: bool) -> None:
    root = {**FAMILY, "label": label}
    for line in tree([root], PLAIN if plain else BLOCKS, width):
        assert line.cell_len <= width


def test_wide_characters_keep_the_columns_in_line() -> None:
    lines = tree([budget("b-1", label="日本語"), budget("b-2", label="abcdef")])
    assert len({line.cell_len for line in lines[1:]}) == 1


# -- what others wrote ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\nb\rc", "a\\nb\\rc"),
        ("\u202eturned", "\\u202eturned"),
        ("[red]markup[/red]", "[red]markup[/red]"),
        ("Zürich 🐢", "Zürich 🐢"),
    ],
)
def test_a_label_is_shown_and_does_nothing(label: str, shown: str) -> None:
    assert drawn(budget("b-1", label=label))[1].startswith(f"{shown}  b-1")


@given(st.text())
def test_no_text_of_others_reaches_the_terminal_raw(text: str) -> None:
    entry = {"at_ms": 0, "budget": text, "kind": text, "target": text, "note": text}
    lines = [*tree([budget("b-1", label=text)]), *statement(budget(text), [entry], UTC)]
    assert all(line.plain.isprintable() for line in lines)


# -- amounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "amount", "shown"),
    [
        ("total_tokens", 0, "0"),
        ("total_tokens", 999, "999"),
        ("total_tokens", 1000, "1k"),
        ("total_tokens", 1234, "1.2k"),
        ("total_tokens", 999_949, "999.9k"),
        ("total_tokens", 999_950, "1M"),
        ("requests", 2**53 - 1, "9P"),
        ("nano_usd", 0, "$0"),
        ("nano_usd", 1, "$0.000000001"),
        ("nano_usd", 12_300_000, "$0.0123"),
        ("nano_usd", 12_345_678, "$0.0123"),
        ("nano_usd", 500_000_000, "$0.50"),
        ("nano_usd", 999_999_999, "$1.00"),
        ("nano_usd", 5_000_000_000, "$5.00"),
        ("nano_usd", 20_000_000_000, "$20.00"),
        ("nano_usd", 2**53 - 1, "$9007199.25"),
    ],
)
def test_a_short_amount_is_about_how_much(unit: str, amount: int, shown: str) -> None:
    assert short(unit, amount) == shown


@pytest.mark.parametrize(
    ("unit", "amount", "shown"),
    [
        ("total_tokens", 123_456, "123456"),
        ("nano_usd", 0, "$0"),
        ("nano_usd", 1_234_567_891, "$1.234567891"),
        ("nano_usd", 500_000_000, "$0.50"),
        ("nano_usd", 30_000_000_000, "$30.00"),
        ("nano_usd", -100_000_000, "-$0.10"),
    ],
)
def test_an_exact_amount_is_all_of_it(unit: str, amount: int, shown: str) -> None:
    assert exact(unit, amount) == shown


@given(st.integers(-(2**53), 2**53))
def test_an_exact_amount_reads_back(nano: int) -> None:
    assert Decimal(exact("nano_usd", nano).replace("$", "")) * 10**9 == nano


def test_amounts_are_told_with_their_units_and_without_zeros() -> None:
    assert amounts({"total_tokens": 4000, "requests": 1, "input_tokens": 0, "nano_usd": 5 * 10**8}) == (
        "4k tokens, 1 request, $0.50"
    )
    assert amounts({"requests": None}) == ""


# -- bars -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settled", "held", "limit", "expected"),
    [
        (0, 0, 100, (0, 0, 10)),
        (50, 20, 100, (5, 2, 3)),
        (1, 0, 1000, (1, 0, 9)),
        (0, 1, 1000, (0, 1, 9)),
        (999, 0, 1000, (9, 0, 1)),
        (1000, 0, 1000, (10, 0, 0)),
        (500, 500, 1000, (5, 5, 0)),
        (1200, 0, 1000, (10, 0, 0)),
        (800, 700, 1000, (8, 2, 0)),
        (0, 0, 0, (10, 0, 0)),
    ],
)
def test_a_bar_shows_the_least_and_is_full_only_when_the_budget_is(
    settled: int, held: int, limit: int, expected: tuple[int, int, int]
) -> None:
    assert cells(settled, held, limit, 10) == expected


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.integers(0, 2**53), st.integers(4, 20))
def test_a_bar_is_as_long_as_it_should_be(settled: int, held: int, limit: int, width: int) -> None:
    parts = cells(settled, held, limit, width)
    assert sum(parts) == width
    assert min(parts) >= 0
    assert (parts[2] == 0) == (settled + held >= limit)


def test_a_bar_that_is_spent_is_red() -> None:
    spent = tree([budget("b-1", limits=tokens(10), settled=tokens(10))])[1]
    left = tree([budget("b-1", limits=tokens(10), settled=tokens(9))])[1]
    assert "red" in [span.style for span in spent.spans]
    assert "red" not in [span.style for span in left.spans]


# -- the statement ----------------------------------------------------------------------------------------------------


def test_a_statement_lists_what_was_posted_and_ends_with_the_totals() -> None:
    entries: list[dict[str, Any]] = [
        {"at_ms": 1_700_000_000_000, "budget": "b-1", "kind": "open", "amounts": tokens(4000), "note": "agents"},
        {
            "at_ms": 1_700_000_001_500,
            "budget": "b-2",
            "kind": "settle",
            "amounts": {"total_tokens": 57, "requests": 1, "nano_usd": 12_300_000},
            "target": "echo/echo",
        },
        {
            "at_ms": 1_700_000_002_000,
            "budget": "b-1",
            "kind": "settle",
            "amounts": {**NOTHING, "total_tokens": 1200, "requests": 1},
            "uncertain": True,
        },
        {"at_ms": 1_700_000_003_000, "budget": "b-1", "kind": "reconcile", "amounts": tokens(-200)},
    ]
    top = budget(
        "b-1",
        limits=tokens(4000),
        settled={"total_tokens": 1057, "requests": 2, "nano_usd": 12_300_000},
        held=tokens(500),
        window="day",
    )
    assert [line.plain for line in statement(top, entries, UTC)] == [
        "time                 budget  kind       tokens  requests      USD  note",
        "2023-11-14 22:13:20  b-1     open                                  limit 4000 tokens; agents",
        "2023-11-14 22:13:21  b-2     settle         57         1  $0.0123  echo/echo",
        "2023-11-14 22:13:22  b-1     settle       1200         1           uncertain",
        "2023-11-14 22:13:23  b-1     reconcile    -200",
        "                     b-1     settled      1057         2  $0.0123  this day",
        "                     b-1     held          500         0       $0  this day",
        "                     b-1     limit        4000                     this day",
    ]


def test_a_statement_of_nothing_still_says_what_was_settled() -> None:
    assert [line.plain.split() for line in statement(budget("b-1"), [], UTC)] == [
        ["time", "budget", "kind", "note"],
        ["b-1", "settled"],
    ]
