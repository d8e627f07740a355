"""The replies to a batch: collected, and sent as one array."""

from collections.abc import Callable

from llmd.core import jsonrpc
from llmd.core.jsonrpc import Call, Ignored

Send = Callable[[bytes], None]


class BatchReplies:
    """Collects a batch's replies and sends them as one array, in the order of the requests; none, if there are none."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._replies: list[bytes | None] = []
        self._missing = 0
        self._sealed = False

    def slot(self, item: jsonrpc.Item) -> Send:
        """Where the reply to `item` goes."""
        if isinstance(item, Ignored) or (isinstance(item, Call) and item.id is None):
            return _nowhere
        number = len(self._replies)
        self._replies.append(None)
        self._missing += 1

        def fill(reply: bytes) -> None:
            self._replies[number] = reply
            self._missing -= 1
            self._send_if_whole()

        return fill

    def seal(self) -> None:
        """Every item has its slot."""
        self._sealed = True
        self._send_if_whole()

    def _send_if_whole(self) -> None:
        if self._sealed and not self._missing and self._replies:
            self._send(jsonrpc.render_batch(reply for reply in self._replies if reply is not None))


def _nowhere(reply: bytes) -> None:
    return
