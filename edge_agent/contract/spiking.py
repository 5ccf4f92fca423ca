"""Spiking sensor: it spikes again and again, alone. Its other readings still count; what leaps out is masked.

It begins with the third spike (`spike`) within `WINDOW` readings, which normal operation has not twice at half the
height, and ends after as many without one. A machine that turns rough makes readings leap as well. Two things tell it
from a loose contact: roughness comes close together, so that a spike counts only `SPACING` ticks after the last; and
it shows in more than one sensor, so that none begins while another one of the asset had a spike of late, nor on
an asset where fewer than `WITNESSES` others could show one.

While it lasts a leap out is masked as it comes. Of two in a row the second passes: a level that steps is no spike, and
a reading that returns is not masked for the leap that it makes.
"""

import numpy as np

from edge_agent.contract.spike import WINDOW
from edge_agent.contract.types import Bool, Float32, Float64, Int64

WITNESSES = 2
"""Other sensors that could show a rough machine; with fewer nothing tells whose spikes they are."""
SHOWN = 1.5
"""Of the range seen: a spike of noise alone is about as high; a binary sensor, for which it is twice that, has none."""
SPACING = 5
"""Ticks; spikes of a sensor at random in one reading of twenty are seldom closer, those of a rough machine often."""


def follow_spikes(struck: Int64, spike: Bool, tick: Int64) -> Int64:
    """Return (B, F, 3) the ticks of the last spikes that count, the newest last, after a reading.

    Args:
        struck: (B, F, 3) before it.
        spike: (B, F) whether the reading before was one.
        tick: (B,) of the reading.
    """
    place = np.broadcast_to(tick[:, None] - 1, spike.shape)
    close = struck[..., -1] > place - SPACING
    pushed = np.concatenate([struck[..., 1:], place[..., None]], axis=-1)
    newer = np.concatenate([struck[..., :-1], place[..., None]], axis=-1)
    found = np.where((spike & ~close)[..., None], pushed, struck)
    return np.asarray(np.where((spike & close)[..., None], newer, found))


def is_spiking(struck: Int64, already: Bool, tick: Int64) -> Bool:
    """Return (B, F) which sensors spike again and again.

    Args:
        struck: (B, F, 3) from `follow_spikes`.
        already: (B, F) whether they did at the reading before.
        tick: (B,) of the reading.
    """
    recent = struck > (tick - WINDOW)[:, None, None]
    alone = recent[..., -1].sum(axis=1, keepdims=True) == 1
    return np.asarray((recent.all(axis=-1) & alone) | (already & recent[..., -1]))


def witnessed(limit: Float32, span: Float64) -> Bool:
    """Return (F,) whether enough other sensors could spike at all, by their limits and the range (F,) seen."""
    able = limit < SHOWN * span
    return np.asarray(able & (able.sum() > WITNESSES))


def leaps_out(previous: Float32, value: Float32, limit: Float32, masked: Bool) -> Bool:
    """Return (B, F) which readings of a spiking sensor are to be masked.

    Args:
        previous: (B, F) the reading before; NaN where missing.
        value: (B, F) this one.
        limit: (F,) from `spike_limits`.
        masked: (B, F) whether the reading before was.
    """
    return np.asarray((np.abs(value - previous) > limit) & ~masked)


def waits(far: Bool, struck: Int64, leapt: Int64, tick: Int64) -> Bool:
    """Return (B, F) which readings wait for the next one to say whether they are a spike.

    Args:
        far: (B, F) which readings leap beyond `spike.suspect_limits`.
        struck: (B, F, 3) from `follow_spikes`, before them.
        leapt: (B,) tick of the last reading of the asset that leapt so far and was no spike, or not alone.
        tick: (B,) of the readings.
    """
    calm = (struck[..., -1] <= (tick - SPACING)[:, None]).all(axis=1) & (leapt <= tick - WINDOW)
    return np.asarray(far & calm[:, None])
