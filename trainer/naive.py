"""Forecasts that need no model: the last sample, and the sample a season ago (Hyndman, Athanasopoulos 2021, §5.2)."""

from collections.abc import Sequence

import numpy as np

from edge_agent.contract.types import Bool, Float32, Float64, Int64
from trainer.cleaning import Cleaned, Series

SEASONS = {"daily": 86_400.0, "weekly": 604_800.0}
LEAST_SEASONS = 3
"""A history of fewer cannot show that something comes back."""
_WHOLE = 1e-6


def recognise_season(cleaned: Cleaned, sensors: Int64) -> int | None:
    """Return the season in ticks, a day or a week, whichever forecasts the history better; None where it shows neither.

    Args:
        cleaned: of which at least one asset spans `LEAST_SEASONS` seasons.
        sensors: (f,) places of those that are forecast.
    """
    found: dict[int, float] = {}
    for seconds in SEASONS.values():
        ticks = round(seconds / cleaned.interval)
        whole = ticks >= 2 and abs(ticks * cleaned.interval - seconds) < _WHOLE * seconds
        if whole and any(one.ticks[-1] - one.ticks[0] >= LEAST_SEASONS * ticks for one in cleaned.series):
            found[ticks] = _square_change(cleaned.series, ticks, sensors)
    known = {ticks: change for ticks, change in found.items() if np.isfinite(change)}
    return min(known, key=lambda ticks: known[ticks]) if known else None


def _square_change(series: Sequence[Series], ticks: int, sensors: Int64) -> float:
    """Return the mean square of what changes in a season, each sensor in its own standard deviations."""
    changes, spreads = [], []
    for one in series:
        before, known = at_ticks(one, one.ticks - ticks)
        changes.append((one.values - before)[known][:, sensors])
        spreads.append(one.values[:, sensors])
    change = np.concatenate(changes)
    if not len(change):
        return float("nan")
    spread = np.nanstd(np.concatenate(spreads), axis=0)
    moving = spread > 0
    return float(np.nanmean((change[:, moving] / spread[moving]) ** 2)) if moving.any() else float("nan")


def at_ticks(series: Series, ticks: Int64) -> tuple[Float32, Bool]:
    """Return the samples (n, F) at ticks (n,), NaN where there is none, and at which there is one (n,)."""
    place = np.minimum(np.searchsorted(series.ticks, ticks), len(series.ticks) - 1)
    known = series.ticks[place] == ticks
    values = np.where(known[:, None], series.values[place], np.float32(np.nan))
    return values.astype(np.float32), known


def season_ago(
    series: Series, target: Int64, horizon: int, season: int, centre: Float64, scale: Float64
) -> Float32:
    """Return (n, F) scaled: what was read a season, or as many as the horizon needs, before ticks `target` (n,).

    Args:
        series: the asset, whole.
        target: ticks that are forecast, `horizon` ticks ahead.
        horizon: ticks; nothing that was read after the forecast was made is looked at.
        season: ticks.
        centre: (F,) of the scaling, engineering units.
        scale: (F,) of the scaling, engineering units.
    """
    lag = season * -(-horizon // season)
    values, _ = at_ticks(series, target - lag)
    return np.asarray((values - centre.astype(np.float32)) / scale.astype(np.float32), np.float32)
