"""The signature of an alarm: in which direction the machine left normal, whatever the distance.

`s = [W_l l, W_r r] / |[W_l l, W_r r]|` with `l` and `r` (F,) the EWMAs of the standardised levels and residuals over a
span of about 15 samples and `W = R^-1/2` of their correlations: what normally moves together says nothing of a fault.
Cosine similarity of two signatures tells whether two alarms are of one kind, as fault signatures do (Yoon and MacGregor
2001, Fault diagnosis with multivariate statistical models). A constant sensor has no standard deviation; how far it
left its range stands for its level. What else was tried, with figures: docs/decisions/0007.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.scoring import Scorer
from edge_agent.contract.scoring_state import Averages
from edge_agent.contract.types import Bool, Float64, Int64

SIGNATURE_SPAN = 15
"""Shorter averages are noise, longer ones remember what was before the alarm."""
GROWTH = 1.5
"""A score that is so many times the one told last is news."""
TURN = 0.5
"""Cosine to the direction told last, below which an alarm has become one of another kind: 60 degrees. On the pump
this adds one or two updates in a thousand samples of alarm."""


@dataclass
class ReportedState:
    """What the last event of each asset's alarm said, one row per asset.

    Attributes:
        direction: (A, 2F) unit vectors.
        score: (A,).
    """

    direction: Float64
    score: Float64

    @staticmethod
    def zero(assets: int, sensors: int) -> "ReportedState":
        """Return the state of assets that never were in alarm."""
        return ReportedState(np.zeros((assets, 2 * sensors)), np.zeros(assets))


def directions(scorer: Scorer, state: Averages) -> Float64:
    """Return the signatures (n, 2F) of averages: levels, then residuals; zeros where nothing deviates."""
    model = scorer.model
    chosen = max(place for place, span in enumerate(model.spans) if span <= SIGNATURE_SPAN)
    level, residual = scorer.whitened(state, chosen)
    level = np.where(model.judged, level, state.excess[:, 0])
    vector = np.concatenate([level, residual], axis=1)
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    return np.asarray(vector / np.maximum(length, 1e-12))


def changed(reported: ReportedState, rows: Int64, direction: Float64, score: Float64, told: Bool) -> Bool:
    """Return (B,) which alarms are no longer what was told of them; what is told now is remembered.

    Args:
        reported: changed in place.
        rows: (B,) assets with an open alarm.
        direction: (B, 2F) signatures now.
        score: (B,) now.
        told: (B,) whether there is an event of the asset anyway.
    """
    news = is_news(reported, rows, direction, score)
    said = rows[told | news]
    reported.direction[said], reported.score[said] = direction[told | news], score[told | news]
    return news


def is_news(reported: ReportedState, rows: Int64, direction: Float64, score: Float64) -> Bool:
    """Return (n,) which samples of open alarms say something else than what was told last.

    Args:
        reported: what was.
        rows: (n,) assets of the samples.
        direction: (n, 2F) signatures.
        score: (n,); below the threshold a direction says little and nothing is news.
    """
    grown = score > GROWTH * reported.score[rows]
    turned = np.einsum("bf,bf->b", reported.direction[rows], direction) < TURN
    return np.asarray((score >= 1.0) & (grown | turned))
