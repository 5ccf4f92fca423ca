"""SKAB's score for changepoints, after the Numenta benchmark: early detections earn, stray and missing ones cost.

Each changepoint has a window to its right. The first detection in it earns from 1 at its left edge down to the cost of
a stray detection at its right edge, along a hyperbolic tangent; later ones in the same window count for nothing. A
window that begins before the one before it ends is cut on its left (`core/metrics.py` of waico/SKAB).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Float64

WINDOW_SECONDS = 60.0


@dataclass(frozen=True)
class Profile:
    """What a mistake costs; a perfect detection earns 1."""

    stray: float
    missed: float


PROFILES = {
    "changepoint_nab": Profile(0.11, 1.0),
    "changepoint_nab_low_fp": Profile(0.22, 1.0),
    "changepoint_nab_low_fn": Profile(0.11, 2.0),
}


def windows_after(changepoints: Sequence[float], width: float = WINDOW_SECONDS) -> list[tuple[float, float]]:
    """Return the windows, both edges inside, of ascending times of changepoints."""
    windows: list[tuple[float, float]] = []
    for point in changepoints:
        start = max(point, windows[-1][1]) if windows else point
        windows.append((start, point + width))
    return windows


def changepoint_score(windows: Sequence[tuple[float, float]], detections: Float64, profile: Profile) -> float:
    """Return the raw score of one file: 0 detections give `-missed` a window, a perfect detector 1 a window.

    Args:
        windows: from `windows_after`.
        detections: (k,) ascending times.
        profile: what a mistake costs.
    """
    score = 0.0
    inside = np.zeros(len(detections), np.bool_)
    for start, end in windows:
        here = (detections >= start) & (detections <= end)
        inside |= here
        if here.any():
            share = (float(detections[here][0]) - start) / (end - start) if end > start else 0.0
            score += _earned(share, profile)
        else:
            score -= profile.missed
    return score - profile.stray * float((~inside).sum())


def _earned(share: float, profile: Profile) -> float:
    """Return what a detection earns at a share of its window, 0 at the left edge and 1 at the right."""
    bend = math.tanh(math.pi * (share - 0.5)) / math.tanh(math.pi / 2.0)
    return (1.0 - profile.stray) / 2.0 - (1.0 + profile.stray) / 2.0 * bend


def normalised(score: float, windows: int, profile: Profile) -> float | None:
    """Return the score on the scale where no detection at all is 0 and a perfect detector 100."""
    null = -profile.missed * windows
    return 100.0 * (score - null) / (windows - null) if windows else None
