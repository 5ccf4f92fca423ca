"""From averages to what is judged: statistics, aspects, and over what is usual of late the statistic and the score."""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.types import Bool, Float64, Int64
from edge_agent.detector_state import ScoredTile


@dataclass(frozen=True, slots=True)
class Weighed:
    """A tile with what does not depend on the samples before, B x L samples.

    Attributes:
        tile: of them.
        asset: (B,) row indices.
        time: (B, L) seconds since the epoch.
        aspects: (B, L, 4) see `Scorer.weigh`.
        sudden: (B, L) see `Scorer.weigh`.
    """

    tile: ScoredTile
    asset: Int64
    time: Float64
    aspects: Float64
    sudden: Float64

    def flat(self, places: Int64, column: int) -> Int64:
        """Return the rows (b,) of the tile of some assets' samples in one column."""
        return np.asarray(places * self.time.shape[1] + column, np.int64)


class Weigher:
    """Weighs samples; holds no state of assets itself.

    Args:
        bundle: the model.
        scorer: of the bundle's scoring model.
    """

    def __init__(self, bundle: Bundle, scorer: Scorer) -> None:
        manifest = bundle.manifest
        self._scorer = scorer
        self._axis = manifest.axis
        self._threshold = manifest.threshold
        self.adapts = manifest.adaptation != "frozen"
        """Whether what is usual of late changes."""
        # A history too short for a claim of rarity has not seen the sensors' whole range either: leaving it proves
        # nothing, except for a sensor that never moved, or where a range that is left for good becomes the usual one.
        short = manifest.threshold.basis == "margin" and not self.adapts
        guarded: Bool = manifest.scaling.constant | (not short)
        self._guarded = guarded if guarded.any() and bundle.scoring.fusion.range_guard else None

    def weigh(self, tile: ScoredTile, asset: Int64) -> Weighed:
        """Return a tile of assets (B,) with its aspects."""
        guard: Float64 | float = 0.0
        if self._guarded is not None:
            guard = self._scorer.guard(tile.averages, self._guarded)
        statistics = self._scorer.statistics(tile.averages, tile.present)
        aspects, sudden = self._scorer.weigh(statistics, guard)
        shape = tile.tick.shape
        return Weighed(
            tile, asset, self._axis.time_of(tile.tick), aspects.reshape(*shape, -1), sudden.reshape(shape)
        )

    def statistic(self, aspects: Float64, normaliser: Float64) -> Float64:
        """Return the judged statistic (n,) of aspects (n, 4) over what is usual of late, (n, 4)."""
        judged = self._scorer.judged(aspects, normaliser)
        news = self._scorer.news(aspects, normaliser)
        news *= self._threshold.value
        return np.maximum(judged, news, out=news)

    def score(self, statistic: Float64, factor: Float64) -> Float64:
        """Return the scores of statistics, the threshold multiplied by factors of the same shape."""
        return self._threshold.score(statistic / factor if np.count_nonzero(factor != 1.0) else statistic)
