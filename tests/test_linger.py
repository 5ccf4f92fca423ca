"""Laws of waiting for more messages."""

from edge_agent.linger import Linger


def _waits(linger: Linger, turns: int, gained: int) -> int:
    waited = 0
    for _ in range(turns):
        if linger.pays():
            waited += 1
            linger.learn(gained)
    return waited


def test_without_a_time_it_never_waits() -> None:
    """A linger of nothing is the lowest latency."""
    assert _waits(Linger(0.0), 100, 1) == 0


def test_it_waits_every_time_while_that_brings_messages() -> None:
    """Where each wait brings one, there is one before each batch."""
    assert _waits(Linger(0.01), 100, 1) == 100


def test_it_waits_less_and_less_where_that_brings_nothing() -> None:
    """Where waits bring nothing they become rare, and return when one brings something again."""
    linger = Linger(0.01)
    assert _waits(linger, 1000, 0) < 15
    assert _waits(linger, 1000, 3) > 500
