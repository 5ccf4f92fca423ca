"""What waits for the main loop: messages in the order of their arrival, bounded by number and by bytes."""

from collections import deque

from edge_agent.packets import Messages


class Inbox:
    """A bounded queue of messages.

    Args:
        capacity: most messages.
        capacity_bytes: most bytes of them, unless one alone has more.
    """

    def __init__(self, capacity: int, capacity_bytes: int) -> None:
        self._capacity, self._capacity_bytes = capacity, capacity_bytes
        self._queue: deque[Messages] = deque()
        self._waiting = self._bytes = 0
        self.overrun = 0
        """How many messages found no room."""

    def __len__(self) -> int:
        """Return how many messages wait."""
        return self._waiting

    def store(self, gathered: Messages) -> Messages | None:
        """Append what has room of messages, the oldest first; returns the rest, which is counted and not kept."""
        fit = gathered.fitting(self._capacity - self._waiting, self._capacity_bytes - self._bytes)
        if not fit and not self._queue:
            fit = 1
        kept, rest = gathered, None
        if fit < len(gathered):
            kept, rest = gathered.split(fit), gathered
            self.overrun += len(rest)
        if len(kept):
            self._queue.append(kept)
            self._waiting += len(kept)
            self._bytes += kept.size
        return rest

    def take(self, count: int, size: int) -> list[Messages]:
        """Return the oldest waiting messages, at most `count`, and at most `size` bytes unless one alone has more."""
        taken: list[Messages] = []
        while self._queue and count > 0:
            fit = self._queue[0].fitting(count, size)
            if not fit and not taken:
                fit = 1
            if not fit:
                break
            whole = fit == len(self._queue[0])
            part = self._queue.popleft() if whole else self._queue[0].split(fit)
            taken.append(part)
            count -= len(part)
            size -= part.size
            self._waiting -= len(part)
            self._bytes -= part.size
        return taken
