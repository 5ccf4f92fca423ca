"""What a score is made of, exactly: its logarithm as a sum over sources and spans, and each of those over sensors.

The fused statistic is a weighted log-mean, so that its logarithm is the sum of `w_i log r_i` over the statistics,
each a ratio to its own 0.99 quantile. The square of each statistic is a sum over sensors (of a Mahalanobis distance,
`z_f (R^-1 z)_f`). Its logarithm is shared among the sensors by those parts, which is what Aumann and Shapley (1974,
Values of Non-Atomic Games) give along the ray from the quantile to the statistic: `w_i log r_i` times the sensor's
part of the square. All sums are exact; a statistic below its quantile takes away from the score, and so do its
sensors. What range guard or contradiction decide belongs to them whole.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.contradiction import Contradiction
from edge_agent.contract.ewma import deviation
from edge_agent.contract.fusion import LEAST_RATIO, RULES
from edge_agent.contract.mahalanobis import Mahalanobis
from edge_agent.contract.scoring_model import NOVELTY_SPAN, ScoringModel
from edge_agent.contract.scoring_state import ScoringState
from edge_agent.contract.shape_novelty import WINDOW, shape_distances
from edge_agent.contract.types import Bool, Float64
from edge_agent.contract.variance import BOUND, LEAST_SQUARE

RANGE = "range"
CONTRADICTION = "contradiction"
USUAL = "what is usual of late"


@dataclass(frozen=True)
class Part:
    """One term of the logarithm of the fused statistic.

    Attributes:
        source: of the statistic, `contradiction`, `range` or `what is usual of late`.
        span: samples, None where it has none.
        weight: of the term.
        ratio: of the statistic to its 0.99 quantile.
        contribution: `weight * log(ratio)`, unless the ratio is at its floor.
        shares: (F,) of the sensors, which sum to 1; None where the term belongs to none.
    """

    source: str
    span: int | None
    weight: float
    ratio: float
    contribution: float
    shares: Float64 | None


@dataclass(frozen=True)
class ScoreParts:
    """The terms of one sample's fused statistic.

    Attributes:
        parts: in the order of the statistics; zero weights are left out.
    """

    parts: tuple[Part, ...]

    @property
    def log_statistic(self) -> float:
        """Return the logarithm of the fused statistic, the sum of all contributions."""
        return sum(part.contribution for part in self.parts)

    def of_sensors(self, count: int) -> Float64:
        """Return (F,) what each sensor contributes; with the terms of no sensor they sum to the logarithm."""
        total = np.zeros(count)
        for part in self.parts:
            if part.shares is not None:
                total += part.contribution * part.shares
        return total


def sensor_squares(model: ScoringModel, state: ScoringState, present: Bool) -> Float64:
    """Return (2S + 5, F): each sensor's part of the square of each statistic of one sample; rows sum to the squares.

    Args:
        model: what was learnt.
        state: averages of one asset, with the sample in them.
        present: (F,) which cells of the sample count.
    """
    judged = (present & model.judged)[None]
    width = len(model.judged)
    per_sensor = width / max(int(judged.sum()), 1)
    spread = deviation(model.spans)[None, :, None]
    rows = [
        Mahalanobis(correlation).contributions(average[:, :-1] / spread, judged)[0] * per_sensor
        for correlation, average in (
            (model.residual_correlation, state.residual),
            (model.level_correlation, state.level),
        )
    ]
    rows.append(_contradiction_squares(model, state, judged)[None])
    rows.append(_variance_squares(model, state, judged[0]))
    rows.append(_novelty_squares(model, state, judged[0])[None])
    rows.append(_shape_squares(model, state, judged[0])[None])
    return np.concatenate(rows)


def _contradiction_squares(model: ScoringModel, state: ScoringState, judged: Bool) -> Float64:
    """Return (F,) the square of the largest contradiction, which is one sensor's."""
    found = np.zeros(judged.shape[1])
    if model.contradiction:
        space = Mahalanobis(model.residual_correlation, model.judged)
        ratio = Contradiction(model.contradiction, space, NOVELTY_SPAN).ratios(state.residual[:, -1], judged)[
            0
        ]
        found[ratio.argmax()] = ratio.max() ** 2
    return found


def _variance_squares(model: ScoringModel, state: ScoringState, judged: Bool) -> Float64:
    variance = model.variance
    strange = np.abs(np.log(np.maximum(state.square[0], LEAST_SQUARE)) - variance.centre) / variance.scale
    return np.asarray(np.where(judged, np.minimum(strange, BOUND) ** 2, 0.0) / max(int(judged.sum()), 1))


def _novelty_squares(model: ScoringModel, state: ScoringState, judged: Bool) -> Float64:
    seen = np.concatenate([judged, judged])
    vector = np.concatenate([state.level[0, -1], state.residual[0, -1]])
    squares = np.where(seen, (vector - model.centres) ** 2, 0.0)
    nearest = squares[squares.sum(axis=1).argmin()] / max(int(seen.sum()), 1)
    return np.asarray(nearest[: len(judged)] + nearest[len(judged) :])


def _shape_squares(model: ScoringModel, state: ScoringState, judged: Bool) -> Float64:
    """Return (F,) the parts of the shape; NaN where none can be judged."""
    shapes = model.shapes
    found = np.zeros(len(judged))
    counted = judged[shapes.sensors]
    if not counted.any() or state.heard[0] < WINDOW:
        return np.full(len(judged), np.nan)
    ratio = shape_distances(shapes.references, state.window[:1], shapes.absolute)[0] / shapes.scale
    found[shapes.sensors] = np.where(counted, ratio**2, 0.0) / int(counted.sum())
    return found


def score_parts(
    model: ScoringModel, state: ScoringState, present: Bool, usual: Float64, statistic: float
) -> ScoreParts:
    """Take a fused statistic apart.

    Args:
        model: what was learnt.
        state: averages of one asset, with the sample in them.
        present: (F,) which cells of the sample count.
        usual: (4,) what was usual of the aspects when the sample came.
        statistic: as the detector gave it; where it is not the fused one, contradiction or range guard decided.
    """
    squares = sensor_squares(model, state, present)
    ratios = np.sqrt(np.maximum(squares.sum(axis=1), 0.0)) / model.normalisers
    weights = model.fusion.aspect_weights.copy()
    weights[1] = 0.0 if np.isnan(ratios[-1]) else weights[1]
    weights /= max(weights.sum(), 1e-12)
    columns = _column_weights(model, ratios[:-1])
    spans = (*model.spans, *model.spans, None, *model.variance.spans, None, None)
    parts = [
        _part(source, span, weights[0] * weight, ratio, square)
        for source, span, weight, ratio, square in zip(
            model.sources[:-1], spans[:-1], columns, ratios[:-1], squares[:-1], strict=True
        )
        if weights[0] * weight > 0.0
    ]
    deviation_log = sum(part.contribution for part in parts) / weights[0] if weights[0] else 0.0
    parts.append(_usual_part(weights[0], deviation_log, float(usual[0])))
    if weights[1]:
        parts.append(_part("shape", None, weights[1], ratios[-1], squares[-1]))
        parts.append(_usual_part(weights[1], float(np.log(max(ratios[-1], LEAST_RATIO))), float(usual[1])))
    found = ScoreParts(tuple(part for part in parts if part.weight > 0.0))
    if abs(np.log(statistic) - found.log_statistic) < 1e-6:
        return found
    place = 2 * len(model.spans)
    ratio = float(ratios[place]) * model.contradiction.balance
    if model.contradiction and abs(np.log(statistic * usual[3]) - np.log(max(ratio, 1e-12))) < 1e-6:
        decided = _part(CONTRADICTION, None, 1.0, ratio, squares[place])
        return ScoreParts((decided, _usual_part(1.0, decided.contribution, float(usual[3]))))
    excess = state.excess[0, 0] * (state.excess[0, 0] == state.excess[0, 0].max())
    shares = excess / max(float(excess.sum()), 1e-12)
    return ScoreParts((Part(RANGE, None, 1.0, statistic, float(np.log(statistic)), shares),))


def _column_weights(model: ScoringModel, ratios: Float64) -> Float64:
    """Return (C,) the weights of the statistics in the logarithm; of the maximum, all is the largest one's."""
    weights = model.fusion.column_weights(model.sources[:-1])
    if model.fusion.rule == RULES[0]:
        return weights
    return np.asarray(np.eye(len(ratios))[int(np.where(weights > 0.0, ratios, -1.0).argmax())])


def _part(source: str, span: int | None, weight: float, ratio: float, square: Float64) -> Part:
    shares = square / max(float(square.sum()), 1e-12)
    return Part(
        source, span, float(weight), float(ratio), float(weight * np.log(max(ratio, LEAST_RATIO))), shares
    )


def _usual_part(weight: float, log: float, usual: float) -> Part:
    """Return what holding an aspect against what is usual of late takes from its logarithm, or adds to it."""
    held = np.log(max(np.exp(log) / usual, LEAST_RATIO))
    return Part(USUAL, None, float(weight), 1.0 / usual, float(weight * (held - log)), None)
