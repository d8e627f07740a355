"""What a method is: its params and result as types, what runs it, and what it may work with."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from llmd.budget_operations import BudgetOperations
from llmd.context import Context
from llmd.executor import Executor
from llmd.meter import Meter
from llmd.replays import Replays
from llmd.settings import Limits
from llmd.upstreams import Upstreams


class Empty(Struct, frozen=True, forbid_unknown_fields=True):
    """No members."""


class Service(Struct, frozen=True, kw_only=True):
    """The parts of a daemon that its methods work with.

    upstreams  the ones of the configuration in force
    reload     read the configuration again, and tell what comes into force only with a restart; raises config_invalid,
               and then nothing has changed
    is_token   compares with the daemon's bearer token in constant time
    meter      counts the calls
    in_flight  calls that are running, on all connections
    """

    methods: "Mapping[str, Method]"
    executor: Executor
    budgets: BudgetOperations
    replays: Replays
    upstreams: Callable[[], Upstreams]
    limits: Callable[[], Limits]
    reload: Callable[[], Awaitable[list[str]]]
    is_token: Callable[[str], bool]
    started: float  # seconds since the epoch
    meter: Meter = msgspec.field(default_factory=Meter)
    in_flight: Callable[[], int] = lambda: 0


class Method(NamedTuple):
    """One row of METHODS: exactly one of `now` and `run`.

    now  answers there and then, even at the in-flight limit; never waits
    run  becomes a task that can be cancelled
    """

    params: type[Struct]
    result: Any
    summary: str
    now: Callable[[Service, Any, Context], Any] | None = None
    run: Callable[[Service, Any, Context], Awaitable[Any]] | None = None
