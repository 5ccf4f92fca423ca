"""What waits to be published: a bounded queue in memory, drained in order while the broker is there."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One message to publish."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


class Outbox:
    """A queue that never blocks and never grows beyond its capacity; the oldest message gives way.

    Args:
        capacity: most messages held.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self._capacity = capacity
        self._waiting: deque[OutgoingMessage] = deque()
        self._lock = threading.Lock()
        self._dropped = 0
        self.accepted = 0
        """How many messages were put in since the start; those that do not wait any more are the oldest of them."""

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._waiting)

    @property
    def dropped(self) -> int:
        """Return how many messages gave way since the start."""
        return self._dropped

    def put(self, message: OutgoingMessage) -> None:
        """Append a message; when full, the oldest is dropped and counted."""
        with self._lock:
            self.accepted += 1
            if len(self._waiting) >= self._capacity:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(message)

    def drain(self, send: Callable[[OutgoingMessage], bool]) -> int:
        """Send from the front until `send` refuses one, which stays at the front.

        Returns:
            How many were sent.
        """
        sent = 0
        while True:
            with self._lock:
                if not self._waiting:
                    return sent
                message = self._waiting.popleft()
            if not send(message):
                self._restore(message)
                return sent
            sent += 1

    def _restore(self, message: OutgoingMessage) -> None:
        with self._lock:
            if len(self._waiting) >= self._capacity:
                self._dropped += 1
            else:
                self._waiting.appendleft(message)
