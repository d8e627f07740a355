"""Listeners and byte streams: they accept, say who connected, and hand what comes to the methods.

A transport is a module with `async def serve(listener, hub, group, require_token)`, which accepts until the daemon
stops.
"""

from collections.abc import Mapping
from types import MappingProxyType

TRANSPORTS: Mapping[str, str] = MappingProxyType({"tcp": "llmd.transports.tcp", "http": "llmd.transports.http"})
"""The module that serves each scheme of `--listen`; loaded when something listens there."""
