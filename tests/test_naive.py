"""Laws of the forecasts that need no model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.cleaning import Cleaned, Series
from trainer.naive import recognise_season, season_ago

HOUR = 3600.0


def _series(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", keep: slice | None = None) -> Series:
    ticks = np.arange(len(values))
    chosen = keep or slice(None)
    return Series("pump", ticks[chosen], values[chosen, None].astype(np.float32), None)


def _cleaned(series: Series, interval: float) -> Cleaned:
    return Cleaned(("flow",), interval, 0.0, (series,), {}, (), (), len(series.ticks))


# The farthest back is 69 ticks, a season less one more than the horizon: from there on there is a sample.
@given(st.integers(1, 20), st.integers(1, 50), st.integers(69, 99))
def test_a_season_ago_is_never_after_the_forecast(season: int, horizon: int, target: int) -> None:
    """What is taken is a whole number of seasons back, and was read when the forecast was made."""
    series = _series(np.arange(100.0))
    found = season_ago(series, np.array([target]), horizon, season, np.zeros(1), np.ones(1))[0, 0]
    assert (target - found) % season == 0
    assert target - horizon - season < found <= target - horizon


def test_a_season_that_was_not_read_is_missing() -> None:
    """Where no sample was a season ago the forecast is missing, whatever stands beside it."""
    series = _series(np.arange(50.0), slice(20, None))
    found = season_ago(series, np.array([25, 35]), 1, 10, np.zeros(1), np.ones(1))[:, 0]
    assert np.isnan(found[0])
    assert found[1] == 25


@pytest.mark.parametrize(("period", "season"), [(24, 24), (168, 168), (None, None)])
def test_the_season_is_recognised(period: int | None, season: int | None) -> None:
    """A day or a week is recognised by what comes back; three days of history show neither."""
    hours = np.arange(24 * 7 * 4 if period else 24 * 2)
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.1, len(hours)) + (np.sin(2 * np.pi * hours / period) if period else 0.0)
    if period == 168:
        values += np.sin(2 * np.pi * hours / 24)
    assert recognise_season(_cleaned(_series(values), HOUR), np.arange(1)) == season


def test_the_season_is_that_of_what_is_forecast() -> None:
    """A command that comes back every day makes no daily season of a sensor that comes back every week."""
    hours = np.arange(24 * 7 * 4)
    daily, weekly = (100 * (hours % 24)).astype(np.float32), np.sin(2 * np.pi * hours / 168)
    series = Series("pump", hours, np.stack([daily, weekly.astype(np.float32)], axis=1), None)
    cleaned = Cleaned(("valve", "flow"), HOUR, 0.0, (series,), {}, (), (), len(hours))
    assert [recognise_season(cleaned, np.array([place])) for place in (0, 1)] == [24, 168]


def test_ticks_that_make_no_day_have_no_season() -> None:
    """A sampling interval of which neither a day nor a week is a whole number has no season."""
    assert recognise_season(_cleaned(_series(np.arange(5000.0)), 1100.0), np.arange(1)) is None
