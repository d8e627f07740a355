"""A batch's replies leave as one array, in the order of its requests, when the last one is there."""

from itertools import permutations

import pytest

from llmd.core.jsonrpc import Call, Ignored, Invalid, Item
from llmd.rpc.batch import BatchReplies

REQUEST = Call(b"1", "ping", None)
NOTIFICATION = Call(None, "ping", None)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_replies_are_in_the_order_of_the_requests_whatever_the_order_they_came_in(order: tuple[int, ...]) -> None:
    sent: list[bytes] = []
    replies = BatchReplies(sent.append)
    slots = [replies.slot(REQUEST) for _ in range(3)]
    replies.seal()
    for number in order:
        assert sent == []
        slots[number](b"%d" % number)
    assert sent == [b"[0,1,2]"]


def test_nothing_leaves_before_every_item_has_been_looked_at() -> None:
    sent: list[bytes] = []
    replies = BatchReplies(sent.append)
    replies.slot(REQUEST)(b"1")
    assert sent == []
    replies.slot(Invalid(b"null", "no"))(b"2")
    replies.seal()
    assert sent == [b"[1,2]"]


@pytest.mark.parametrize("items", [[], [NOTIFICATION], [Ignored()], [NOTIFICATION, Ignored()]], ids=str)
def test_what_gets_no_reply_leaves_no_array(items: list[Item]) -> None:
    sent: list[bytes] = []
    replies = BatchReplies(sent.append)
    for item in items:
        replies.slot(item)(b"never")
    replies.seal()
    assert sent == []


def test_a_notification_takes_no_place_in_the_array() -> None:
    sent: list[bytes] = []
    replies = BatchReplies(sent.append)
    slots = [replies.slot(item) for item in (NOTIFICATION, REQUEST, NOTIFICATION)]
    replies.seal()
    for slot in slots:
        slot(b"1")
    assert sent == [b"[1]"]
