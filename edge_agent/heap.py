"""Memory that is free goes back to the system.

The C library keeps what was freed for what comes next. While assets appear all arrays grow again and again; what they
were before would stay with the process for good: a quarter of its growth (docs/decisions/0023).
"""

import ctypes
from collections.abc import Callable


def find_trim() -> Callable[[int], int] | None:
    """Return `malloc_trim` of the C library, None where it has none, as musl's and that of macOS."""
    try:
        found = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    found.argtypes, found.restype = [ctypes.c_size_t], ctypes.c_int
    return found


class Heap:
    """Gives memory back once those that came are all there."""

    def __init__(self) -> None:
        self._trim = find_trim()
        self._given_back = self._seen = 0

    def settle(self, assets: int) -> bool:
        """Give back what is free if assets came, and none since the last call; returns whether it was done."""
        grows, self._seen = assets > self._seen, assets
        if grows or assets == self._given_back:
            return False
        self._given_back = assets
        if self._trim is not None:
            self._trim(0)
        return True
