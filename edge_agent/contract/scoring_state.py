"""What is remembered of assets for their scores: averages of residuals and levels, and what slowly moved."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from edge_agent.contract.grid import UNSET
from edge_agent.contract.scoring_model import ScoringModel
from edge_agent.contract.shape_novelty import WINDOW
from edge_agent.contract.types import Float32, Float64, Int64, Places


@dataclass
class Averages:
    """What n samples are judged by: the averages with each of them in it, one row per sample.

    Attributes:
        residual, level: (n, S + 1, F); the last span is the novelty's.
        excess: (n, 1, F) smoothed range excess.
        bias: (n, 1, F) how far the levels have slowly drifted from those of training, standard deviations.
        window: (n, W, M) the last readings of the sensors whose shape is judged, scaled units, the newest last.
        heard: (n,) samples in `window`, at most W.
        square: (n, 2, F) mean squares of the residuals.
    """

    residual: Float64
    level: Float64
    excess: Float64
    bias: Float64
    window: Float32
    heard: Int64
    square: Float64

    def take(self, rows: Places) -> Self:
        """Return some rows; those of a slice are no copy."""
        return type(self)(*(getattr(self, item.name)[rows] for item in fields(self)))


@dataclass
class ScoringState(Averages):
    """Averages of all assets, one row per asset.

    Attributes:
        offset: (A, 1, F) how far the forecasts have slowly come off, or were accepted to be, standard deviations.
        lesson: (A, 2, F) sums of the levels that the bias, and of the residuals that the offset is still to learn of.
        stretch: (A,) which `BIAS_TICKS` ticks of the grid they are of, `UNSET` before the first.
    """

    offset: Float64
    lesson: Float64
    stretch: Int64

    @staticmethod
    def zero(assets: int, model: ScoringModel) -> "ScoringState":
        """Return the state of assets that have seen nothing."""
        sensors = len(model.judged)
        shape = (assets, len(model.spans) + 1, sensors)
        single = (assets, 1, sensors)
        window = np.zeros((assets, WINDOW, len(model.shapes.sensors)), np.float32)
        return ScoringState(
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(single),
            np.zeros(single),
            window,
            np.zeros(assets, np.int64),
            np.ones((assets, 2, sensors)),
            np.zeros(single),
            np.zeros((assets, 2, sensors)),
            np.full(assets, UNSET),
        )

    def forget(self, rows: Int64, model: ScoringModel) -> None:
        """Let the averages of some rows begin anew; what is known of their baseline stays."""
        fresh, kept = ScoringState.zero(len(rows), model), self.take(rows)
        for name in ("bias", "offset", "lesson", "stretch"):
            setattr(fresh, name, getattr(kept, name))
        self.put(rows, fresh)

    def put(self, rows: Places, values: "ScoringState") -> None:
        """Write rows back."""
        for item in fields(self):
            getattr(self, item.name)[rows] = getattr(values, item.name)
