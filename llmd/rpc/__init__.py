"""The methods of protocol 1: one file a topic, one line here a method."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from llmd.chat import DeltaParams
from llmd.rpc.base import Method
from llmd.rpc.daemon import AUTH, INFO, PING, RELOAD
from llmd.rpc.discover import DISCOVER
from llmd.rpc.execute import EXECUTE
from llmd.rpc.models import LIST

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "execute": EXECUTE,
        "models.list": LIST,
        "daemon.info": INFO,
        "daemon.auth": AUTH,
        "daemon.reload": RELOAD,
        "ping": PING,
        "rpc.discover": DISCOVER,
    }
)

NOTIFICATIONS: Mapping[str, type[Struct]] = MappingProxyType({"llmd.delta": DeltaParams})
"""What the daemon sends unasked for an answer, with the type of its params."""
