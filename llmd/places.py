"""Where the library's calls are made and its budgets kept: in this process (local) or in the daemon (remote)."""

from typing import Protocol

from llmd.books import Opened, OpenParams, Snapshot
from llmd.chat import Ask, Completion
from llmd.policy import RoutingPolicy

DAEMON = "daemon"
"""The `home` of what the daemon keeps."""


class Place(Protocol):
    """Lives on the engine, where all of it is called.

    home  equal for places whose budgets are the same
    """

    @property
    def home(self) -> object: ...

    async def execute(self, ask: Ask, policy: RoutingPolicy | None = None) -> Completion:
        """By this policy in the place of the configured rules, if it is given. Raises LLMError."""
        ...

    async def open(self, params: OpenParams) -> Opened: ...

    async def get(self, budget: str) -> Snapshot: ...

    async def close(self, budget: str, cancel: bool) -> Snapshot:
        """How it stood when the last call below it had ended; with `cancel`, those are aborted."""
        ...
