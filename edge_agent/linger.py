"""When to wait for more messages, so that they are scored together: only while waiting brings some.

A call of the detector costs much the same for one sample as for many. But where messages come singly, or where the
broker wants its acknowledgements before it sends more, waiting gains nothing and costs latency; and under load a batch
gathers by itself while the last one is scored.
"""

_LONGEST_BREAK = 256


class Linger:
    """Decides before each batch.

    Args:
        seconds: how long one wait is; 0 never waits.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._break = 0
        self._left = 0

    def pays(self) -> bool:
        """Return whether to wait this time; after a wait, `learn` is told what it brought."""
        if self.seconds <= 0.0:
            return False
        self._left -= 1
        return self._left < 0

    def learn(self, gained: int) -> None:
        """Note how many messages came during a wait; each that brings none makes the break to the next one longer."""
        self._break = 0 if gained > 0 else min(max(2 * self._break, 1), _LONGEST_BREAK)
        self._left = self._break
