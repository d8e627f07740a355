"""Clients of the daemon. The wire, on the standard library alone, is here at once; the typed ones when they are used.

`Client` (sync) and `AsyncClient` (asyncio, trio) are exported by `llmd`.
"""

from llmd.client.wire import ConnectionLost, NoDaemon, Wire

__all__ = ["ConnectionLost", "NoDaemon", "Wire"]
