"""llmd: a local daemon that makes LLM calls for every program on the machine, and a library that makes them itself.

Importing the package imports nothing heavy; the names that it exports are loaded when they are first used.
"""

from llmd.version import VERSION as __version__

TYPE_CHECKING = False  # typing takes 3 ms to load, and every call of the command line pays for it
if TYPE_CHECKING:
    from llmd.books import Snapshot
    from llmd.chat import Completion, Delta, Message, Reasoning, ResponseFormat, Tool, Usage
    from llmd.client.asynchronous import AsyncClient
    from llmd.client.sync import Client
    from llmd.client.wire import NoDaemon
    from llmd.errors import ConfigError, LLMBudgetExceededError, LLMError
    from llmd.library import Adapter, RoutingPolicy, create_adapter
    from llmd.run_config import RunConfig
    from llmd.tracker import BudgetTracker

__all__ = [
    "Adapter",
    "AsyncClient",
    "BudgetTracker",
    "Client",
    "Completion",
    "ConfigError",
    "Delta",
    "LLMBudgetExceededError",
    "LLMError",
    "Message",
    "NoDaemon",
    "Reasoning",
    "ResponseFormat",
    "RoutingPolicy",
    "RunConfig",
    "Snapshot",
    "Tool",
    "Usage",
    "__version__",
    "create_adapter",
]

_MODULES = {
    "llmd.books": ("Snapshot",),
    "llmd.chat": ("Completion", "Delta", "Message", "Reasoning", "ResponseFormat", "Tool", "Usage"),
    "llmd.client.asynchronous": ("AsyncClient",),
    "llmd.client.sync": ("Client",),
    "llmd.client.wire": ("NoDaemon",),
    "llmd.errors": ("ConfigError", "LLMBudgetExceededError", "LLMError"),
    "llmd.library": ("Adapter", "RoutingPolicy", "create_adapter"),
    "llmd.run_config": ("RunConfig",),
    "llmd.tracker": ("BudgetTracker",),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module 'llmd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
