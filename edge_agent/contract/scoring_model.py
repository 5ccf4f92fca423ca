"""What is learnt of normal residuals and levels, by which a machine is scored."""

from dataclasses import dataclass, field, replace

import numpy as np

from edge_agent.contract.contradiction import ContradictionModel, fit_contradiction
from edge_agent.contract.ewma import Smoother
from edge_agent.contract.fusion import Fusion
from edge_agent.contract.mahalanobis import bounded, shrunk_correlation
from edge_agent.contract.novelty import find_centres
from edge_agent.contract.shape_novelty import ShapeModel, fit_shapes
from edge_agent.contract.types import Bool, Float32, Float64, Int64
from edge_agent.contract.variance import SPANS as VARIANCE_SPANS
from edge_agent.contract.variance import VarianceModel, fit_variance

SPANS = (1, 5, 15, 60)
NOVELTY_SPAN = 5
ASPECTS = 4
"""Deviation, shape, range, contradiction."""
NOTHING_USUAL: Float64 = np.array([1.0, 1.0, 0.0, 1.0])
"""What is usual where nothing adapts: the 0.99 quantiles, and no excursion beyond the range."""
LEAST_DEVIATION = 0.3
"""Of the 0.99 quantile, as of that of the contradiction: what is usual of late is never smaller, however quiet the
machine became."""


@dataclass(frozen=True)
class ScoringModel:
    """What was learnt from normal residuals and levels, in scaled units.

    Attributes:
        spans: S EWMA spans in samples.
        residual_centre, residual_scale: (F,).
        residual_correlation: (F, F).
        level_centre, level_scale: (F,).
        level_correlation: (F, F).
        centres: (K, 2F) of [level, residual].
        low, high: (F,) range seen.
        judged: (F,) sensors that the distances use; constant ones are only range-guarded.
        variance: of the residuals.
        normalisers: (2S + 5,) 0.99 quantiles; ones before calibration.
        shapes: of normal operation.
        recent: (R, 4) block maxima of the aspects at the end of the history, see `trailing`.
        fusion: how the statistics become one.
        contradiction: of the residuals.
    """

    spans: tuple[int, ...]
    residual_centre: Float64
    residual_scale: Float64
    residual_correlation: Float64
    level_centre: Float64
    level_scale: Float64
    level_correlation: Float64
    centres: Float64
    low: Float64
    high: Float64
    judged: Bool
    variance: VarianceModel
    normalisers: Float64
    shapes: ShapeModel = field(default_factory=ShapeModel.none)
    recent: Float32 = field(default_factory=lambda: NOTHING_USUAL[None].astype(np.float32))
    fusion: Fusion = field(default_factory=Fusion)
    contradiction: ContradictionModel = field(default_factory=ContradictionModel.none)

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the source of each statistic, in the order of `Scorer.statistics`."""
        spans = len(self.spans)
        averaged = *("residual",) * spans, *("level",) * spans
        return (*averaged, "contradiction", *("variance",) * 2, "novelty", "shape")

    @property
    def least(self) -> Float64:
        """Return (4,) how small what is usual of late may become, of each aspect."""
        return np.array([LEAST_DEVIATION, self.shapes.least, 0.0, LEAST_DEVIATION])

    def normalised(self, normalisers: Float64) -> "ScoringModel":
        """Return the model with each statistic's own 0.99 quantile."""
        return replace(self, normalisers=normalisers)


def fit_scoring(
    residual: Float64,
    level: Float64,
    judged: Bool,
    low: Float64,
    high: Float64,
    spans: tuple[int, ...],
    fusion: Fusion | None = None,
    run: Int64 | None = None,
    adapts: bool = False,
) -> ScoringModel:
    """Learn from residuals and levels (n, F) of normal data, NaN where a cell does not count.

    `run` (n,) is the same number for rows that follow each other without a break; None is no break at all. `adapts`
    says whether what is usual follows recent rows, see `fit_shapes`.
    """
    run = np.zeros(len(level), np.int64) if run is None else run
    width = residual.shape[1]
    model = ScoringModel(
        spans,
        *_centre_and_scale(residual),
        np.eye(width),
        *_centre_and_scale(level),
        np.eye(width),
        np.zeros((1, 2 * width)),
        low,
        high,
        judged,
        VarianceModel.unknown(width),
        np.ones(2 * len(spans) + 5),
        fusion=fusion or Fusion(),
    )
    u = bounded((residual - model.residual_centre) / model.residual_scale)
    v = bounded((level - model.level_centre) / model.level_scale)
    present = np.isfinite(u) & judged
    filled = np.where(present, u, 0.0)
    moved, known = np.where(np.c_[present, present], np.c_[v, u], 0.0), np.c_[present, present]
    states = Smoother([NOVELTY_SPAN]).follow(np.zeros((1, 1, 2 * width)), moved[None], known[None])[0, :, 0]
    # Of a long history each of these is larger than the history itself.
    del moved, known
    centres = find_centres(states[min(4 * NOVELTY_SPAN, len(states) - 1) :])
    del states
    residual_correlation = shrunk_correlation(np.where(present, u, np.nan))
    return replace(
        model,
        residual_correlation=residual_correlation,
        level_correlation=shrunk_correlation(np.where(present, v, np.nan)),
        variance=fit_variance(filled, present, tuple(min(span, max(spans)) for span in VARIANCE_SPANS)),
        centres=centres,
        shapes=fit_shapes(level, run, judged, adapts) if model.fusion.weight("shape") else ShapeModel.none(),
        contradiction=fit_contradiction(filled, present, residual_correlation, judged, NOVELTY_SPAN)
        if model.fusion.contradiction
        else ContradictionModel.none(),
    )


def _centre_and_scale(rows: Float64) -> tuple[Float64, Float64]:
    """Return mean and standard deviation (F,), the latter never under 1e-3 scaled units."""
    known = np.isfinite(rows)
    count = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, rows, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (rows - centre) ** 2, 0.0).sum(axis=0) / count)
    return centre, np.maximum(spread, 1e-3)
