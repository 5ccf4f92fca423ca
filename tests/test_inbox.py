"""Laws of the inbox: bounded by number and by bytes, in order, and what has no room is counted."""

from edge_agent.inbox import Inbox
from edge_agent.packets import Messages


def _messages(*payloads: bytes) -> Messages:
    messages = Messages()
    for payload in payloads:
        messages.add(b"t", payload)
    return messages


def _payloads(taken: list[Messages]) -> list[bytes]:
    return [payload for messages in taken for payload in messages.payloads]


def test_the_oldest_messages_stay_when_it_is_full() -> None:
    """What has no room is given back and counted, and taking makes room again."""
    inbox = Inbox(3, 1000)
    assert inbox.store(_messages(b"1", b"2")) is None
    rest = inbox.store(_messages(b"3", b"4", b"5"))
    assert rest is not None
    assert (rest.payloads, inbox.overrun, len(inbox)) == ([b"4", b"5"], 2, 3)
    assert _payloads(inbox.take(2, 1000)) == [b"1", b"2"]
    assert inbox.store(_messages(b"6")) is None
    assert _payloads(inbox.take(9, 1000)) == [b"3", b"6"]


def test_a_message_larger_than_the_inbox_is_taken_alone() -> None:
    """One message always fits into an empty inbox, and always comes out of it."""
    inbox = Inbox(10, 4)
    assert inbox.store(_messages(b"123456789")) is None
    assert inbox.store(_messages(b"1")) is not None
    assert _payloads(inbox.take(10, 4)) == [b"123456789"]
