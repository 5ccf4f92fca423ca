"""How long to wait before trying again, so that a broker that comes back is not stormed."""

import random

LONGEST_DELAY_SECONDS = 60.0


class BackOff:
    """Delays between attempts: doubling from one second, at most a minute, each shortened at random by up to half."""

    def __init__(self) -> None:
        self._ceiling = 1.0

    def next(self) -> float:
        """Return the seconds to wait now."""
        delay = self._ceiling * random.uniform(0.5, 1.0)
        self._ceiling = min(self._ceiling * 2, LONGEST_DELAY_SECONDS)
        return delay

    def reset(self) -> None:
        """Start again at one second."""
        self._ceiling = 1.0
