"""How long to wait for more messages, so that they are scored together: only while waiting brings some.

A call of the detector costs much the same for one sample as for many. Without a wait an agent that could do far more is
busy all the time with batches just large enough to keep up. So it waits as long as the last turn of its work took: then
it rests at least half of the time, and batches grow with the rate until they are large or the longest wait is reached.
But where messages come singly, or where the broker wants its acknowledgements before it sends more, waiting brings
nothing; then it becomes rare.
"""

_LONGEST_BREAK = 256


class Linger:
    """Decides before each batch.

    Args:
        longest: seconds of the longest wait; 0 never waits.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._break = 0
        self._left = 0

    def seconds(self, last_turn: float) -> float:
        """Return how long to wait this time, 0 for not at all; after a wait, `learn` is told what it brought.

        Args:
            last_turn: seconds that the last turn of work took.
        """
        self._left -= 1
        return 0.0 if self._left >= 0 else min(last_turn, self._longest)

    def learn(self, gained: int) -> None:
        """Note how many messages came during a wait; each that brings none makes the break to the next one longer."""
        self._break = 0 if gained > 0 else min(max(2 * self._break, 1), _LONGEST_BREAK)
        self._left = self._break
