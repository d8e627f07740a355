"""The library: calls from Python, made in this process or by the daemon, by one and the same executor.

An adapter says where a call goes, a RunConfig how, a BudgetTracker who pays. All of it runs on the engine: threads, and
tasks of asyncio and trio, hand their calls over and wait.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from llmd import config as configuration
from llmd import engine, policy
from llmd.chat import Ask, Completion, Message
from llmd.core.rules import Rule
from llmd.engine import Engine
from llmd.errors import LLMError
from llmd.known import KNOWN
from llmd.local import local
from llmd.places import Place
from llmd.run_config import RunConfig, ask_of

Prompt = str | Sequence[Message | Mapping[str, Any]]
"""What is said: one text of the user's, or the messages of a conversation, as `execute` takes them."""

_NOTHING = RunConfig()


class Adapter:
    """Makes calls on one target, or on those that rules choose. Threads and tasks share it; it holds no connection."""

    def __init__(
        self,
        target: str | None = None,
        config: RunConfig | None = None,
        daemon: bool = False,
        *,
        rules: "RoutingPolicy | None" = None,
        labels: Mapping[str, str] | None = None,
        task_type: str | None = None,
    ) -> None:
        if target is not None and not isinstance(target, str):
            raise TypeError(f'target: expected a string such as "openai/gpt-5-mini", got {type(target).__name__}')
        self.provider, _, self.model = (target or "").partition("/")
        self.daemon = daemon
        self._config = _config(config) or _NOTHING
        self._rules = rules
        self._labels = dict(labels or {})
        self._task_type = task_type

    def __repr__(self) -> str:
        chosen = f"{self.provider}/{self.model}" if self.model else self.provider or "as rules choose"
        return f"<Adapter {chosen}{', daemon' if self.daemon else ''}>"

    def execute_prompt(self, prompt: Prompt, config: RunConfig | None = None) -> Completion:
        """One call; this thread waits. Its text is `.text` of what is returned, tokens and cost are `.usage`, `.cost`.

        config  in the place of the adapter's own
        Raises TypeError for a config that is none, LLMError, of a budget that it would pass LLMBudgetExceededError.
        Interrupted, the call is aborted.
        """
        return engine.shared().call(partial(self._execute, prompt, _config(config) or self._config))

    async def async_execute_prompt(self, prompt: Prompt, config: RunConfig | None = None) -> Completion:
        """The same from a task of asyncio or trio; many at once take as long as the slowest.

        Cancelled, the call is aborted.
        """
        return await engine.shared().reach(partial(self._execute, prompt, _config(config) or self._config))

    async def _execute(self, prompt: Prompt, config: RunConfig, on: Engine) -> Completion:
        ask = self._ask(prompt, config)
        place = await self._place(on)
        if config.budget_tracker is not None:
            ask = replace(ask, budget=await config.budget_tracker.opened(place, on))
        return await place.execute(ask, self._rules)

    async def _place(self, on: Engine) -> Place:
        if not self.daemon:
            return await local(on)
        from llmd.remote import remote  # a client, which most programs need not load

        return await remote(on)

    def _ask(self, prompt: Prompt, config: RunConfig) -> Ask:
        if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray | memoryview):
            reason = f"prompt: expected a string or a sequence of messages, got {type(prompt).__name__}"
            raise LLMError("invalid_params", reason, path="prompt")
        params = config.params()
        params |= {"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}
        if self.provider:
            self._aim(params, config)
        labels = params.get("labels", {})
        for name, value in self._labels.items():
            if labels.get(name, value) != value:
                raise _contradiction(f"labels.{name}", f"the adapter is bound to {value!r}")
        if self._task_type is not None and params.get("task_type", self._task_type) != self._task_type:
            raise _contradiction("task_type", f"the adapter is bound to {self._task_type!r}")
        params["labels"] = {**labels, **self._labels}
        if self._task_type is not None:
            params["task_type"] = self._task_type
        return ask_of(params)

    def _aim(self, params: dict[str, Any], config: RunConfig) -> None:
        """At this adapter's provider; a config may name another model of it."""
        provider, model = config.provider, config.model_name
        if provider is None and model is not None:
            before, slash, after = model.partition("/")
            # "vendor/model" is also the own name of a model, at those that resell them.
            if slash and model != self.model:
                provider, model = before, after
        if provider is not None and provider != self.provider:
            path = "model_name" if config.provider is None else "provider"
            raise _contradiction(path, f"the adapter is of {self.provider!r}, not of {provider[:64]!r}")
        if not (model or self.model):
            raise LLMError("invalid_params", "model_name: the adapter names only a provider", path="model_name")
        params["provider"], params["model"] = self.provider, model or self.model


class RoutingPolicy(policy.RoutingPolicy):
    """Which requests go to which models: `rules` are those of `[[routing.rules]]`, as tables or as Rules.

    `providers` are the names that targets may have; unset, those that the catalog or the configuration knows. Raises
    ConfigError with every problem: the index of its rule, the path of the member, what was expected.
    """

    def __init__(self, rules: Sequence[Rule | Mapping[str, Any]], providers: Collection[str] | None = None) -> None:
        known = providers
        if known is None:
            known = {*KNOWN, *configuration.load(os.environ).catalog.providers}
        super().__init__(rules, known)

    def resolve(self, *, task_type: str | None = None, config: RunConfig | None = None, **labels: str) -> Adapter:
        """An adapter whose calls have these labels, and go where this policy sends such calls, in this process.

        Which of its targets that is, is decided by each call: by what it needs, by keys, prices, budget and health. The
        configuration file is read again. Raises ConfigError for one that cannot be used.
        """
        loaded = configuration.load(os.environ)
        engine.shared().call(lambda on: local(on, loaded))
        return Adapter(config=config, rules=self, labels=labels, task_type=task_type)


def create_adapter(target: str | None = None, config: RunConfig | None = None, daemon: bool = False) -> Adapter:
    """An adapter for `target`, "provider/model" or a provider; None leaves the choice to rules and `default_model`.

    config  of calls that come with none
    daemon  have the daemon make the calls; else they are made in this process, by the same configuration file, which
            is read again with each adapter that is made
    Raises ConfigError for a configuration that cannot be used, LLMError (no_route) for a provider that it has not.
    """
    made = Adapter(target, config, daemon)
    if not daemon:
        loaded = configuration.load(os.environ)
        if made.provider and made.provider not in loaded.catalog.providers:
            raise LLMError("no_route", loaded.catalog.absent(made.provider))
        engine.shared().call(lambda on: local(on, loaded))
    return made


def _config(given: RunConfig | None) -> RunConfig | None:
    if given is not None and not isinstance(given, RunConfig):
        raise TypeError(f"config: expected a RunConfig, got {type(given).__name__}")
    return given


def _contradiction(path: str, reason: str) -> LLMError:
    return LLMError("invalid_params", f"{path}: {reason}", path=path)
