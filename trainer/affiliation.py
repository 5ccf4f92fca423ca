"""Affiliation precision, recall and F1 (Huet et al., "Local Evaluation of Time Series Anomaly Detection", KDD 2022)."""

import numpy as np

from edge_agent.contract.types import Float64
from trainer.scored_rows import ScoredRows, f_score


def affiliation_figures(rows: ScoredRows) -> dict[str, float | None]:
    """Judge by nearness: is an alarm nearer to the fault, and the fault nearer to an alarm, than chance would have it?

    Each fault J owns the zone E of rows that are nearer to it than to any other fault of its asset. In each zone,
    with X uniform in E and A the alarms in E,

        precision = mean over points x of A of P(dist(X, J) ≥ dist(x, J)); undefined without an alarm in E
        recall    = mean over points y of J of P(|X - y| ≥ dist(y, A)); 0 without an alarm in E

    A row is a stretch of length 1 of a continuous axis, as in the paper, and the means are exact integrals. The
    figures are the means over the zones in which they are defined. Chance is not at 0: an alarm that never stops has a
    recall of 1 and as precision the mean of (1 + (|J|/|E|)²)/2, so an F1 of 0.67 or more.

    Args:
        rows: of all assets; the means are over the zones of all of them together. An asset without a fault has no
            zone, and its alarms are not judged here.

    Returns:
        `affiliation_precision` (`None` without an alarm), `affiliation_recall` and `affiliation_f1` (`None` without a
        fault).
    """
    alarms = rows.alarms.astype(np.float64)
    precisions, recalls = [], []
    for fault, zone in zip(rows.faults.astype(np.float64), _zones(rows), strict=True):
        begin = np.searchsorted(alarms[:, 1], zone[0], side="right")
        end = np.searchsorted(alarms[:, 0], zone[1], side="left")
        inside = np.clip(alarms[begin:end], *zone)
        recalls.append(_zone_recall(inside, fault, zone) if len(inside) else 0.0)
        if len(inside):
            precisions.append(_zone_precision(inside, fault, zone))
    precision = float(np.mean(precisions)) if precisions else None
    recall = float(np.mean(recalls)) if recalls else None
    return {
        "affiliation_precision": precision,
        "affiliation_recall": recall,
        "affiliation_f1": f_score(precision, recall),
    }


def _zones(rows: ScoredRows) -> Float64:
    """Return (k, 2): each fault's zone, from the middle of the gap before it to the middle of the gap after it."""
    asset = np.searchsorted(rows.bounds, rows.faults[:, 0], side="right") - 1
    zones = np.stack([rows.bounds[asset], rows.bounds[asset + 1]], axis=1).astype(np.float64)
    neighbours = np.flatnonzero(asset[1:] == asset[:-1])
    middles = (rows.faults[neighbours, 1] + rows.faults[neighbours + 1, 0]) / 2
    zones[neighbours, 1] = zones[neighbours + 1, 0] = middles
    return zones


def _zone_precision(alarms: Float64, fault: Float64, zone: Float64) -> float:
    """Return the mean over alarm points of the share of the zone that is at least as far from the fault."""
    starts, ends = alarms.T
    (first, last), (low, high) = fault, zone
    inside = np.clip(ends, first, last) - np.clip(starts, first, last)
    total = float(inside.sum())  # the whole zone is at least as far as distance 0
    sides = [
        (first - np.minimum(ends, first), first - np.minimum(starts, first)),
        (np.maximum(starts, last) - last, np.maximum(ends, last) - last),
    ]
    for near, far in sides:
        # Nearer than d: the fault, and up to d on both sides, as far as the zone goes.
        nearer = (last - first) * (far - near)
        for reach in (first - low, high - last):
            nearer = nearer + _bounded_integral(far, reach) - _bounded_integral(near, reach)
        total += float(np.sum((far - near) - nearer / (high - low)))
    return min(total / float(np.sum(ends - starts)), 1.0)


def _zone_recall(alarms: Float64, fault: Float64, zone: Float64) -> float:
    """Return the mean over fault points of the share of the zone that is at least as far away as the nearest alarm."""
    starts, ends = alarms.T
    (first, last), (low, high) = fault, zone
    middles = (ends[:-1] + starts[1:]) / 2  # where the nearest alarm changes
    total = float(np.sum(np.clip(ends, first, last) - np.clip(starts, first, last)))
    after = np.clip([ends, np.append(middles, np.inf)], first, last) - ends  # distances behind each alarm
    before = starts - np.clip([starts, np.insert(middles, 0, -np.inf)], first, last)
    for (near, far), room in ((after, high - ends), (before, starts - low)):
        # Nearer than d to a point at d from an alarm: 2·d, as far as the zone goes beyond the alarm's edge.
        nearer = 2 * (_bounded_integral(far, room / 2) - _bounded_integral(near, room / 2))
        total += float(np.sum((far - near) - nearer / (high - low)))
    return min(total / float(last - first), 1.0)


def _bounded_integral(distance: Float64, reach: Float64 | float) -> Float64:
    """Return the integral of min(t, reach) over t from 0 to each distance."""
    within = np.minimum(distance, reach)
    return np.asarray(within * within / 2 + reach * (distance - within), np.float64)
