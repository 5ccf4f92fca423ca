"""Counters: sensors that only ever rise, as energy, operating hours and pieces do.

What a counter will read next week no history has seen. Kept as a sensor it makes all that is usual of the machine
strange, and faults of the others with it: of twelve faults in three sensors of a machine all raised an alarm, and one
did with an energy meter and an hour counter among them (docs/decisions/0028). Its rate would tell of the machine.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from edge_agent.contract.types import Float32
from trainer.cleaning import Cleaned

LEAST_STEPS = 500
"""Fewer steps may all rise by chance of a slow movement."""
RISING, FALLING = 0.05, 0.0003
"""Shares of the steps of a counter: as many rise at least, and no more fall, where it is reset."""


_BLOCK = 65_536


def is_counter(readings: Sequence[Float32]) -> bool:
    """Return whether a sensor only ever rises, by its readings (n,) of each asset in order, NaN where missing."""
    total = sum(max(int(np.count_nonzero(np.isfinite(part))) - 1, 0) for part in readings)
    rises = falls = 0
    for part in readings:
        last = np.empty(0, np.float32)
        # Most sensors fall at once: nothing as large as the history is made of them.
        for at in range(0, len(part), _BLOCK):
            block = part[at : at + _BLOCK]
            known = np.concatenate([last, block[np.isfinite(block)]])
            step, last = np.diff(known), known[-1:]
            rises, falls = rises + int(np.count_nonzero(step > 0)), falls + int(np.count_nonzero(step < 0))
            if falls > FALLING * total:
                return False
    return total >= LEAST_STEPS and rises >= RISING * total


def without_counters(cleaned: Cleaned, kept: Collection[str]) -> Cleaned:
    """Return a history without its counters, which a notice names; where all sensors are, it stays as it is.

    Args:
        cleaned: history of normal operation.
        kept: names of sensors that stay whatever they do.
    """
    columns = [[one.values[:, place] for one in cleaned.series] for place in range(len(cleaned.sensors))]
    counters = [
        name
        for name, parts in zip(cleaned.sensors, columns, strict=True)
        if name not in kept and is_counter(parts)
    ]
    if not counters or len(counters) == len(cleaned.sensors):
        return cleaned
    places = [place for place, name in enumerate(cleaned.sensors) if name not in counters]
    notice = (
        f"only ever rising and left out, as counters hide the faults of the others: {', '.join(counters)} "
        "(a rate would tell of the machine; --exogenous keeps one as an input)"
    )
    return replace(
        cleaned,
        sensors=tuple(cleaned.sensors[place] for place in places),
        series=tuple(replace(one, values=one.values[:, places]) for one in cleaned.series),
        notices=(*cleaned.notices, notice),
        unused=(*cleaned.unused, *counters),
    )
