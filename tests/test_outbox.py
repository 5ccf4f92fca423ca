"""Laws of the outbox: order, bound, nothing lost uncounted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.outbox import Outbox, OutgoingMessage


def _message(number: int) -> OutgoingMessage:
    return OutgoingMessage(str(number), b"")


@given(st.integers(1, 5), st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=30))
def test_sent_waiting_and_dropped_are_all(capacity: int, steps: list[int | None]) -> None:
    """Every message is sent, waiting or counted as dropped, and what is sent keeps its order."""
    outbox = Outbox(capacity)
    sent: list[int] = []
    put = 0
    for step in steps:
        if step is None:
            outbox.put(_message(put))
            put += 1
            continue
        limit = len(sent) + step

        def send(message: OutgoingMessage, limit: int = limit) -> bool:
            if len(sent) >= limit:
                return False
            sent.append(int(message.topic))
            return True

        outbox.drain(send)
        assert len(outbox) <= capacity
    assert sent == sorted(set(sent))
    assert len(sent) + len(outbox) + outbox.dropped == put


def test_refused_message_stays_in_front() -> None:
    """A message that could not be sent is the next one to be tried."""
    outbox = Outbox(3)
    for number in range(3):
        outbox.put(_message(number))
    assert outbox.drain(lambda message: message.topic != "1") == 1
    topics: list[str] = []

    def send(message: OutgoingMessage) -> bool:
        topics.append(message.topic)
        return True

    outbox.drain(send)
    assert topics == ["1", "2"]


def test_capacity_is_positive() -> None:
    """An outbox that could hold nothing is refused."""
    with pytest.raises(ValueError, match="capacity"):
        Outbox(0)
