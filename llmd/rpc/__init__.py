"""The methods of protocol 1: one file a topic, one line here a method."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from llmd.books import BudgetUpdate
from llmd.chat import DeltaParams, DoneParams
from llmd.rpc import budget
from llmd.rpc.base import Method
from llmd.rpc.daemon import AUTH, INFO, PING, RELOAD
from llmd.rpc.discover import DISCOVER
from llmd.rpc.execute import EXECUTE
from llmd.rpc.execute_many import EXECUTE_MANY
from llmd.rpc.models import LIST
from llmd.rpc.route import EXPLAIN

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "execute": EXECUTE,
        "execute_many": EXECUTE_MANY,
        "budget.open": budget.OPEN,
        "budget.charge": budget.CHARGE,
        "budget.close": budget.CLOSE,
        "budget.get": budget.GET,
        "budget.resize": budget.RESIZE,
        "budget.tree": budget.TREE,
        "budget.statement": budget.STATEMENT,
        "budget.watch": budget.WATCH,
        "budget.unwatch": budget.UNWATCH,
        "route.explain": EXPLAIN,
        "models.list": LIST,
        "daemon.info": INFO,
        "daemon.auth": AUTH,
        "daemon.reload": RELOAD,
        "ping": PING,
        "rpc.discover": DISCOVER,
    }
)

NOTIFICATIONS: Mapping[str, type[Struct]] = MappingProxyType(
    {"llmd.delta": DeltaParams, "llmd.done": DoneParams, "llmd.budget": BudgetUpdate}
)
"""What the daemon sends unasked for an answer, with the type of its params."""
