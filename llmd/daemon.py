"""The composition root: builds the parts of a daemon, serves until told to stop, and drains."""

import asyncio
import hmac
import logging
import os
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import SocketListener, TaskStatus
from msgspec import Struct

from llmd import config, paths, process, roots, tokens, users
from llmd.budget_operations import BudgetOperations
from llmd.catalog import key_variables
from llmd.clock import Clock
from llmd.config import Config
from llmd.errors import ConfigError, LLMError, trace
from llmd.executor import Executor
from llmd.journal import DurabilityLost, StoreUnavailable
from llmd.listening import listening
from llmd.meter import Meter
from llmd.payer import Payer
from llmd.replays import Replays
from llmd.rpc import METHODS
from llmd.rpc.base import Service
from llmd.rpc.dispatch import Dispatcher
from llmd.rpc.hub import Hub
from llmd.settings import Limits
from llmd.stores import Store
from llmd.systemd import Manager, answers
from llmd.traffic import Traffic
from llmd.transports import unix
from llmd.transports.accepting import accept_all
from llmd.transports.claims import GIVE_WAY, Claim
from llmd.treasury import Treasury
from llmd.upstreams import Carrier, Upstreams

log = logging.getLogger("llmd.daemon")

IDLE_EXIT_S = 15 * 60.0
WATCH_INTERVAL_S = 5.0
GOODBYE_S = 2.0


class Options(Struct, frozen=True, kw_only=True):
    """What the command line decides. `spawned` is a daemon that a `call` started: it ends by itself.

    ready_fd  a descriptor to write a line to and close, once calls are answered
    """

    socket: Path
    config: Path | None = None
    listen: list[str] = []
    token_file: Path | None = None
    require_token: bool = False
    spawned: bool = False
    idle_exit_s: float = IDLE_EXIT_S
    ready_fd: int | None = None


class Daemon:
    """One daemon: `serve` is its whole life."""

    def __init__(self, options: Options, env: Mapping[str, str], manager: Manager | None = None) -> None:
        self._options = options
        self._env = env
        self._manager = manager or Manager({})
        self._config = config.load(env, options.config)
        self._began = self._config.settings
        self._claim = Claim(env, key_variables(self._config.catalog.providers), options.spawned)
        self._token: bytes | None = None
        self._carrier = Carrier()
        self._lost: StoreUnavailable | None = None
        self._reloading = anyio.Lock()
        self._draining = anyio.CancelScope()  # its deadline is set when the daemon begins to stop
        self._traffic = Traffic()
        self._upstreams = self._build(self._config)
        settings = self._config.settings
        self._store = Store(settings.ledger, paths.ledger_file(env), options.socket)
        self._treasury = Treasury(Clock(asyncio.get_running_loop().time), settings.budgets, settings.limits.budgets)
        self._replays = replays = Replays(self._treasury)
        payer = Payer(self._treasury, lambda: self._config.settings.ledger.default_max_tokens)
        meter = Meter()
        executor = Executor(lambda: self._upstreams, payer, meter=meter)
        service = Service(
            methods=METHODS,
            executor=executor,
            budgets=BudgetOperations(self._treasury, replays),
            replays=replays,
            upstreams=lambda: self._upstreams,
            limits=self._limits,
            reload=self._reload,
            is_token=self._is_token,
            started=time.time(),
            meter=meter,
            in_flight=lambda: self._hub.in_flight,
        )
        self._hub = Hub(Dispatcher(service), self._limits, lambda: self._config.peers)

    async def serve(self) -> None:
        """Listen, answer, drain.

        Raises SocketUnavailable, StoreUnavailable, or ConfigError for what it is told to listen on.
        """
        options = self._options
        urls = dict.fromkeys([*options.listen, *config.listeners(self._config.settings.listen).values()])
        process.raise_descriptor_limit()
        with ExitStack() as stack:
            group = users.group(self._config.settings.peers)
            sockets = listening(options.socket, list(urls), self._manager.handed, self._claim, group)
            bound = stack.enter_context(sockets)
            if bound.others:
                file = options.token_file or paths.token_file(self._env)
                self._token = tokens.read(file)
            if (journal := self._store.open()) is not None:
                self._treasury.open(journal)
            async with anyio.create_task_group() as own:
                await own.start(self._heed_signals)
                own.start_soon(self._keep_ledger, own.cancel_scope)
                async with anyio.create_task_group() as connections:
                    for unix_socket in bound.unix:
                        accepted = await SocketListener.from_socket(unix_socket.dup())
                        connections.start_soon(accept_all, accepted, self._hub, connections, self._serve_unix)
                    for transport, other in bound.others:
                        required = options.require_token
                        connections.start_soon(transport.serve, other.dup(), self._hub, connections, required)
                    if options.spawned and bound.inode is not None:
                        own.start_soon(self._watch, bound.inode)
                    self._announce(bound.names)
                    self._warn()
                    own.start_soon(self._manager.keep_informed, lambda: self._hub.in_flight, lambda: self._hub.draining)
                    own.start_soon(self._manager.keep_alive, self._is_well)
                    own.start_soon(process.warm_up)
                    await self._hub.stopping.wait()
                    # From here on the path is free for the next daemon, and nobody waits in a backlog of ours.
                    self._treasury.yielding()
                    stack.close()
                    await self._finish_calls()
                    await self._say_goodbye()
                    connections.cancel_scope.cancel()
                await self._carrier.aclose()
                own.cancel_scope.cancel()
        if self._lost is not None:
            raise self._lost
        log.info("stopped")

    # -- parts ----------------------------------------------------------------------------------------------------

    def _limits(self) -> Limits:
        return self._config.settings.limits

    def _build(self, loaded: Config) -> Upstreams:
        rules = loaded.settings.routing.rules
        return Upstreams(loaded.catalog, self._env, self._carrier.open, rules, self._traffic)

    def _is_token(self, token: str) -> bool:
        return self._token is not None and hmac.compare_digest(self._token, token.encode())

    async def _keep_ledger(self, daemon: anyio.CancelScope) -> None:
        """Where nobody can know any more what the store has, the daemon ends: a new one finds out."""
        treasury = self._treasury
        try:
            if not treasury.is_open:
                treasury.open(await self._store.opened())
            await treasury.run()
        except* (StoreUnavailable, DurabilityLost) as group:
            self._lost = StoreUnavailable(str(group.exceptions[0]))
            daemon.cancel()
        finally:
            with anyio.move_on_after(GOODBYE_S, shield=True):
                await treasury.close()

    async def _reload(self) -> list[str]:
        """Calls in flight go on with what they began with; returns the settings that stay until a restart."""
        async with self._reloading:  # else what was read first could come into force last
            self._manager.reloading()
            try:
                await self._configure()
            finally:
                self._manager.ready()
            if waiting := config.after_restart(self._began, self._config.settings):
                log.warning("with a restart comes into force: %s", ", ".join(waiting))
            return waiting

    async def _configure(self) -> None:
        """All of the new configuration, or nothing where something is wrong with it."""
        try:
            loaded = await anyio.to_thread.run_sync(config.load, self._env, self._options.config)
            if problems := roots.problems(self._treasury.ledger.budgets, loaded.settings.budgets):
                raise ConfigError(problems)
        except ConfigError as error:
            log.error("configuration not reloaded: %s", "; ".join(error.problems))
            raise LLMError("config_invalid", "; ".join(error.problems), problems=error.problems) from None
        upstreams = self._build(loaded)
        self._treasury.configure(loaded.settings.budgets)
        self._config, self._upstreams = loaded, upstreams
        self._claim.tell_anew(key_variables(loaded.catalog.providers))
        log.info("configuration reloaded")
        self._warn()

    # -- life -----------------------------------------------------------------------------------------------------

    async def _serve_unix(self, stream: anyio.abc.UNIXSocketStream) -> None:
        await unix.serve_connection(self._hub, stream)

    def _warn(self) -> None:
        for warning in self._config.warnings:
            log.warning("%s", warning)

    async def _is_well(self) -> bool:
        return self._hub.draining or await answers(self._options.socket)

    def _announce(self, names: list[str]) -> None:
        log.info("ready on %s", ", ".join(names))
        self._manager.ready()
        if self._options.ready_fd is not None:
            with suppress(OSError):  # whoever waited for it has gone; others have not
                os.write(self._options.ready_fd, b"\n")
            os.close(self._options.ready_fd)

    async def _heed_signals(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, GIVE_WAY) as signals:
            task_status.started()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [GIVE_WAY])  # `llmd serve` has held it back until here
            async for number in signals:
                if number == GIVE_WAY and self._hub.draining:
                    continue  # several may ask, and nobody has asked to cut it short
                if number != signal.SIGHUP:
                    self._begin_stop(number.name)
                    continue
                try:
                    await self._reload()
                except LLMError:
                    pass  # told in the log, and nothing has changed
                except Exception as error:
                    log.error("a reload failed: %s", trace(error))

    def _begin_stop(self, reason: str) -> None:
        """Said again, it cuts the drain short."""
        if self._hub.draining:
            self._draining.cancel()
            return
        self._draining.deadline = anyio.current_time() + self._limits().drain_ms / 1000
        self._hub.stopping.set()
        self._manager.stopping()
        log.info("stopping: %s", reason)

    async def _watch(self, inode: int) -> None:
        """End a daemon that nobody calls any more, or nobody can."""
        hub = self._hub
        seen, last_call = hub.messages, anyio.current_time()
        while True:
            await anyio.sleep(min(WATCH_INTERVAL_S, self._options.idle_exit_s))
            if hub.draining:
                return
            try:
                here = self._options.socket.stat().st_ino == inode
            except OSError:
                here = False
            memory_only = self._config.settings.ledger.store == "memory" and self._treasury.has_opened_budgets
            if hub.in_flight or hub.messages != seen or memory_only:
                seen, last_call = hub.messages, anyio.current_time()
            idle = anyio.current_time() - last_call >= self._options.idle_exit_s
            if idle or not here:
                self._begin_stop("nobody has called for a while" if idle else "the socket is gone")
                return

    async def _finish_calls(self) -> None:
        """Let what is in flight finish, within `drain_ms`; new calls on old connections are told `shutting_down`."""
        with self._draining:
            await self._hub.idle()
            await self._replays.idle()

    async def _say_goodbye(self) -> None:
        """Cancel what has not finished, and let the answers out."""
        with anyio.move_on_after(GOODBYE_S):
            for session in list(self._hub.sessions):
                session.cancel_calls()
                session.end()
            await self._hub.empty()
