"""The parts of a daemon without its doors, in this process: the same executor, ledger, routing and dialects.

Lives on the engine. Budgets are kept in memory, as long as the process lives; the daemon's store is the daemon's.
"""

import itertools
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from weakref import WeakKeyDictionary

import anyio

from llmd import config, roots
from llmd.books import BudgetParams, CloseParams, Opened, OpenParams, Snapshot
from llmd.budget_operations import BudgetOperations
from llmd.chat import Ask, Completion
from llmd.clock import Clock
from llmd.config import Config
from llmd.context import Context, Peer, Stream
from llmd.engine import Engine
from llmd.errors import ConfigError, LLMError
from llmd.executor import Executor
from llmd.journal.memory import MemoryJournal
from llmd.payer import Payer
from llmd.policy import RoutingPolicy
from llmd.replays import Replays
from llmd.traffic import Traffic
from llmd.treasury import Treasury
from llmd.upstreams import Carrier, Upstreams


class _NoConnection:
    """The other end of the library's calls is this process: its connection ends with it."""

    ended = False

    def stream(self, token: str) -> AbstractContextManager[Stream]:
        raise LLMError("invalid_params", "nothing is streamed here", path="stream")

    def watch(self, token: str, run: object) -> None:
        raise LLMError("invalid_params", "nothing is watched here", path="watch")

    def unwatch(self, token: str) -> bool:
        return False

    def at_end(self, callback: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


class Local:
    """Executor and budgets of this process, by the configuration that is in force."""

    def __init__(self, engine: Engine, loaded: Config, env: Mapping[str, str]) -> None:
        self.home: object = self
        self._env = env
        self._config = loaded
        self._carrier = Carrier()
        engine.stack.push_async_callback(self._carrier.aclose)
        self._traffic = Traffic()
        self._upstreams = self._build()
        self._ruled: WeakKeyDictionary[RoutingPolicy, tuple[Upstreams, Upstreams]] = WeakKeyDictionary()
        settings = loaded.settings
        self._treasury = Treasury(Clock(), settings.budgets, settings.limits.budgets)
        self._treasury.open(MemoryJournal())
        engine.lasting.start_soon(self._treasury.run)
        self._payer = Payer(self._treasury, lambda: self._config.settings.ledger.default_max_tokens)
        self._budgets = BudgetOperations(self._treasury, Replays(self._treasury))
        self._executor = Executor(lambda: self._upstreams, self._payer)
        self._peer = Peer("unix", os.getuid(), os.getpid(), own=True)
        self._connection = _NoConnection()
        self._numbers = itertools.count(1)

    def configure(self, loaded: Config) -> None:
        """As a reload: calls in flight go on with what they began with. Raises ConfigError, and nothing has changed."""
        if loaded == self._config:
            return
        if problems := roots.problems(self._treasury.ledger.budgets, loaded.settings.budgets):
            raise ConfigError(problems)
        self._config = loaded
        self._upstreams = self._build()
        self._treasury.configure(loaded.settings.budgets)

    async def execute(self, ask: Ask, policy: RoutingPolicy | None = None) -> Completion:
        executor = self._executor
        if policy is not None:
            upstreams = self._upstreams_by(policy)
            executor = Executor(lambda: upstreams, self._payer)
        return await executor.execute(ask, self._context())

    async def open(self, params: OpenParams) -> Opened:
        return await self._budgets.open(params, self._context())

    async def get(self, budget: str) -> Snapshot:
        return self._budgets.get(BudgetParams(budget=budget), self._context())

    async def close(self, budget: str, cancel: bool) -> Snapshot:
        params = CloseParams(budget=budget, mode="cancel" if cancel else "drain")
        return (await self._budgets.close(params, self._context())).budget

    def _upstreams_by(self, policy: RoutingPolicy) -> Upstreams:
        """Those of the configuration, chosen by other rules."""
        base, ruled = self._ruled.get(policy, (None, None))
        if ruled is None or base is not self._upstreams:
            ruled = self._upstreams.by(policy.rules)
            self._ruled[policy] = self._upstreams, ruled
        return ruled

    def _context(self) -> Context:
        return Context(self._peer, f"library.{next(self._numbers)}", anyio.current_time(), self._connection)

    def _build(self) -> Upstreams:
        rules = self._config.settings.routing.rules
        return Upstreams(self._config.catalog, self._env, self._carrier.open, rules, self._traffic)


async def local(engine: Engine, loaded: Config | None = None) -> Local:
    """The one of this engine, by `loaded` from now on. Raises ConfigError."""
    found: Local | None = engine.places.get("local")
    if found is None:
        found = engine.places["local"] = Local(engine, loaded or config.load(os.environ), os.environ)
    elif loaded is not None:
        found.configure(loaded)
    return found
