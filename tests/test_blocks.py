"""Laws of the plan of a fit: what rests, what is exogenous and what is filled reaches every block the same."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.scaling import fit_scaling
from trainer.blocks import make_plan
from trainer.cleaning import Cleaned, Series
from trainer.fit_options import FitOptions

ROWS = 3000
SENSORS = ("speed", "flow", "valve")


def _history(rows: int = ROWS) -> Cleaned:
    """Return a pump that stands still for a third of each hundred rows, and whose flow then reads nonsense."""
    rng = np.random.default_rng(0)
    values = np.stack(
        [1500 + rng.normal(size=rows), 40 + rng.normal(size=rows), rng.normal(size=rows)], axis=1
    )
    off = np.arange(rows) % 100 >= 66
    values[off, 0] = 0.0
    values[off, 1] = 1000.0
    series = Series("asset", np.arange(rows), values.astype(np.float32), None)
    return Cleaned(SENSORS, 60.0, 0.0, (series,), {}, (), (), rows)


OPTIONS = FitOptions(window_length=10, units=(), off_when="speed<100", settle_ticks=4)


@pytest.mark.parametrize("rows", [ROWS, 900], ids=["blocks", "folds"])
def test_stops_are_out_of_every_scale_and_every_target(rows: int) -> None:
    """Neither scales nor targets come from a machine that is off or settles, in a long history as in a short one."""
    plan = make_plan(_history(rows), OPTIONS)
    rest = (np.arange(rows) % 100 >= 66) | ((np.arange(rows) % 100 < 4) & (np.arange(rows) >= 100))
    assert plan.resting[0].tolist() == rest.tolist()
    (series,) = plan.cleaned.series
    fitted = np.arange(rows) < (plan.cuts[0].stop if not plan.in_folds else rows)
    np.testing.assert_allclose(plan.scaling.centre, fit_scaling(series.values[fitted & ~rest]).centre)
    assert plan.scaling.maximum[1] < 100
    segments = plan.segments(lambda cuts: [(0, cuts.rows)])
    assert segments.resting.tolist() == rest.tolist()
    if plan.in_folds:
        assert plan.without_fold(3).resting.sum() + plan.fold(3).resting.sum() == rest.sum()


def test_without_a_condition_nothing_rests() -> None:
    """A fit that is told of no stops learns from every row."""
    plan = make_plan(_history(), replace(OPTIONS, off_when=""))
    assert not plan.resting[0].any()
    assert plan.scaling.maximum[1] == 1000


def test_only_a_machine_that_stops_is_told_of_its_starts() -> None:
    """A calibration without a start is told of where it is said when the machine is off, and nowhere else."""
    history = _history(900)
    history.series[0].values[:, 0] = 1500.0
    told = make_plan(history, OPTIONS).starts_notice()
    assert told is not None
    assert told.startswith("the calibration holds 0 of the 0 starts")
    assert make_plan(history, replace(OPTIONS, off_when="")).starts_notice() is None
    assert make_plan(_history(), OPTIONS).starts_notice() is None


def test_a_machine_that_is_always_off_is_refused() -> None:
    """A condition that holds throughout leaves nothing to fit on, which is said with the condition."""
    with pytest.raises(HistoryError, match="off throughout, as speed<1e6 says"):
        make_plan(_history(), replace(OPTIONS, off_when="speed<1e6"))


def test_the_plan_lays_out_commands_and_calendar() -> None:
    """The shape of the forecaster follows from what is exogenous and from the calendar."""
    told = replace(OPTIONS, exogenous=("valve",), calendar=("weekday", "hour"), scaling="minmax")
    plan = make_plan(_history(), told)
    assert (plan.spec.sensors, plan.spec.context, plan.spec.inputs) == (2, 5, 9)
    assert plan.layout.names == (
        "sensor:speed", "sensor:flow", "missing:speed", "missing:flow", "exogenous:valve",
        "calendar:weekday_sin", "calendar:weekday_cos", "calendar:hour_sin", "calendar:hour_cos",
    )  # fmt: skip
    segments = plan.segments(lambda cuts: cuts.fitted(0, cuts.stop))
    assert segments.context.shape == (plan.cuts[0].stop, 5)
    assert np.abs(segments.values[~segments.resting]).max() <= 1 + 1e-3


def test_a_command_that_is_no_column_is_refused() -> None:
    """The name of a command that the history lacks is told with those that there are."""
    with pytest.raises(
        HistoryError, match="exogenous: names 'pump', which is no sensor; there are speed, flow"
    ):
        make_plan(_history(), replace(OPTIONS, exogenous=("pump",)))


def test_samples_that_judge_are_not_filled_and_rest_where_they_rest() -> None:
    """Later samples are scaled as those that were fitted on, rest by their own readings, and keep their gaps."""
    history, later = _history(), _history(500)
    later.series[0].values[50:53, 2] = np.nan
    plan = make_plan(history, replace(OPTIONS, missing="interpolate"))
    segments = plan.over(later).segments(lambda cuts: [(0, cuts.rows)])
    assert segments.missing[:, 2].sum() == 3
    assert np.flatnonzero(segments.resting[:104]).tolist() == list(range(66, 104))
    speed = (later.series[0].values[:, 0] - plan.scaling.centre[0]) / plan.scaling.scale[0]
    np.testing.assert_allclose(segments.values[:, 0], speed, atol=1e-3)


def test_filling_reaches_the_blocks() -> None:
    """What `--missing` says holds for the rows that are fitted on."""
    history = _history()
    history.series[0].values[50:53, 2] = np.nan
    fitted = {
        policy: make_plan(history, replace(OPTIONS, missing=policy)).segments(lambda cuts: [(0, 100)])
        for policy in ("mask", "interpolate")
    }
    assert fitted["mask"].missing[50:53, 2].all()
    assert not fitted["interpolate"].missing.any()
