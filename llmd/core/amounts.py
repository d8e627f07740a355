"""An amount in every unit at once, as one integer: a lane of bits for each unit.

Adding, subtracting and comparing such integers does it in all units, which is what lets a budget's path be checked and
changed in microseconds. A lane holds what any counter can reach; its top bit, the guard, is set only in what is
compared against. A lane's own arithmetic never leaves it, whatever the order of additions, as long as every counter is
right.
"""

from collections.abc import Iterable, Mapping

from llmd.books import UNITS, Amounts, Unit
from llmd.chat import Usage
from llmd.scalars import AMOUNT_MAX

Packed = int

LANE = 80  # bits: no number of calls takes a counter past 2**79, at 2**53 each
_LOW = (1 << LANE) - 1
_SHIFTS: tuple[tuple[Unit, int], ...] = tuple((unit, number * LANE) for number, unit in enumerate(UNITS))

ONES: Packed = sum(1 << shift for _, shift in _SHIFTS)
GUARDS: Packed = ONES << (LANE - 1)
UNLIMITED: Packed = ONES * AMOUNT_MAX
FULL_LANE = (1 << LANE - 1) - 1
"""More than any counter reaches."""
_GUARD_OF: dict[Unit, Packed] = {unit: 1 << shift + LANE - 1 for unit, shift in _SHIFTS}
_ALMOST: Packed = GUARDS - ONES


def pack(amounts: Mapping[Unit, int], default: Packed = 0) -> Packed:
    """`amounts` as one integer; units that it lacks are those of `default`."""
    packed = default
    for unit, shift in _SHIFTS:
        if unit in amounts:
            packed += (amounts[unit] - (default >> shift & _LOW)) << shift
    return packed


def pack_all(amounts: Amounts) -> Packed:
    packed = 0
    for unit, shift in _SHIFTS:
        packed += getattr(amounts, unit) << shift
    return packed


def pack_lanes(amounts: Iterable[int]) -> Packed:
    """One integer for each unit, in the order of UNITS, as one."""
    return sum(amount << shift for amount, (_, shift) in zip(amounts, _SHIFTS, strict=True))


def lanes(packed: Packed) -> list[int]:
    """One integer for each unit, in the order of UNITS."""
    found = []
    for _ in UNITS:
        found.append(packed & _LOW)
        packed >>= LANE
    return found


def guard(unit: Unit) -> Packed:
    """The guard of this unit's lane."""
    return _GUARD_OF[unit]


def unpack(packed: Packed) -> Amounts:
    total, inputs, outputs, requests, nano_usd = lanes(packed)
    return Amounts(total_tokens=total, input_tokens=inputs, output_tokens=outputs, requests=requests, nano_usd=nano_usd)


def by_unit(packed: Packed) -> dict[Unit, int]:
    """The units that are not 0."""
    found: dict[Unit, int] = {}
    for unit in UNITS:
        if amount := packed & _LOW:
            found[unit] = amount
        packed >>= LANE
    return found


def touched(packed: Packed) -> Packed:
    """The guards of the lanes that are not 0."""
    return packed + _ALMOST & GUARDS


def greatest(a: Packed, b: Packed) -> Packed:
    """The greater of the two in each lane."""
    wins = (a | GUARDS) - b & GUARDS
    if wins == GUARDS:
        return a
    if not wins:
        return b
    mask = wins - (wins >> LANE - 1)
    return b ^ (a ^ b) & mask


def least(a: Packed, b: Packed) -> Packed:
    """The lesser of the two in each lane."""
    return a + b - greatest(a, b)


def excess(a: Packed, b: Packed) -> Packed:
    """What `a` is above `b`, lane by lane, 0 where it is not."""
    return greatest(a, b) - b


def spent(usage: Usage, nano_usd: int | None) -> Amounts:
    """What one request with this usage posts; an unknown cost posts no money."""
    return Amounts(
        total_tokens=usage.total_tokens,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        requests=1,
        nano_usd=nano_usd or 0,
    )
