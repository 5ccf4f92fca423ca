"""Laws of screening: a fault in a short history goes before anything is learnt; normal operation and habits stay."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import trainer.fit
from edge_agent.contract.types import Bool, Float32
from trainer.blocks import SHORT_HISTORY, make_plan
from trainer.cleaning import Cleaned, Series
from trainer.fit_options import FitOptions
from trainer.parts import Parts
from trainer.screening import SETTLING, ordinary_samples, without_faults
from trainer.trimming import FALSE_SHARE, MARGIN

ROWS = 400
SENSORS = ("a", "b", "c", "d")
OPTIONS = FitOptions(units=(), max_gap_ticks=60)


def _normal(rows: int, seed: int) -> Float32:
    """Return four sensors (n, 4) that follow two slow causes, with noise of their own."""
    rng = np.random.default_rng(seed)
    causes = np.zeros((rows, 2))
    for row in range(1, rows):
        causes[row] = 0.9 * causes[row - 1] + rng.normal(size=2)
    mixed = causes @ np.array([[1.0, 0.5, 0.0, -0.7], [0.0, 0.8, 1.0, 0.4]])
    return np.asarray(mixed + 0.5 * rng.normal(size=mixed.shape), np.float32)


def _history(values: Float32, marked: Bool | None = None, assets: int = 1) -> Cleaned:
    parts = np.array_split(values, assets)
    marks = [None] * assets if marked is None else np.array_split(marked, assets)
    series = tuple(
        Series(f"asset {number}", np.arange(len(part)), part, None, mark)
        for number, (part, mark) in enumerate(zip(parts, marks, strict=True))
    )
    return Cleaned(SENSORS, 1.0, 0.0, series, {}, (), (), len(values))


def _shifted(values: Float32, first: int, rows: int = 12, sensor: int = 0) -> Float32:
    spoilt = values.copy()
    spoilt[first : first + rows, sensor] += 6.0 * values[:, sensor].std()
    return spoilt


def test_a_fault_goes_with_little_else() -> None:
    """Both ends of a shifted stretch are left out, and of the rows around it no more than the margins."""
    for seed in range(5):
        keep = ordinary_samples(make_plan(_history(_shifted(_normal(ROWS, seed), 200)), OPTIONS))
        assert not keep[200]
        assert not keep[212]
        assert keep[: 200 - 2 * MARGIN].all()
        assert keep[212 + 3 * MARGIN :].all()


def test_normal_operation_is_left_nearly_whole() -> None:
    """Normal histories lose rows about as often as it says, and then a few."""
    lost = [without_faults(make_plan(_history(_normal(ROWS, seed)), OPTIONS))[1] for seed in range(40)]
    assert np.mean(np.array(lost) > 0) <= 5 * FALSE_SHARE
    assert np.mean(lost) < 0.02 * ROWS


def test_a_run_goes_of_which_no_row_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of twice its size that lasts goes whole, though most of it is no farther out than single rows may be."""

    def found() -> list[float]:
        shares = []
        for seed in range(6):
            values = _normal(ROWS, seed)
            values[200:212] += 1.25 * np.random.default_rng(100 + seed).choice([-1.0, 1.0], (12, 4))
            keep = ordinary_samples(make_plan(_history(values), OPTIONS))
            shares.append(float(np.mean(~keep[200:212])))
        return shares

    assert np.mean(found()) > 0.9
    monkeypatch.setattr("trainer.screening.RUN", ROWS)
    assert np.mean(found()) < 0.5


def test_the_first_rows_are_not_judged() -> None:
    """A history that begins far from its centre, where averages of the forecast start at zero, keeps its beginning."""
    for seed in range(10):
        values = _normal(ROWS, seed)
        values[:SETTLING] += np.linspace(4.0, 0.0, SETTLING)[:, None].astype(np.float32)
        assert ordinary_samples(make_plan(_history(values), OPTIONS))[:SETTLING].all()


def test_nothing_more_goes_for_what_has_gone() -> None:
    """The rows behind a fault that was left out, forecast from those before it, stay, however far off they are."""
    for seed in range(10):
        values = _normal(ROWS, seed)
        values[212:] += 3.0
        plan = make_plan(_history(_shifted(values, 200)), OPTIONS)
        kept, lost = without_faults(plan)
        assert 12 <= lost <= 12 + 4 * MARGIN
        gone = np.setdiff1d(np.arange(ROWS), kept.cleaned.series[0].ticks)
        assert np.isin(np.arange(200, 212), gone).all()


def test_what_comes_twice_is_how_the_machine_works() -> None:
    """One shift of a sensor is a fault; two in the same direction are left in."""
    values = _normal(ROWS, 1)
    once = _shifted(values, 100)
    assert not ordinary_samples(make_plan(_history(once), OPTIONS))[100]
    assert ordinary_samples(make_plan(_history(_shifted(once, 300)), OPTIONS))[[100, 300]].all()


def test_what_an_operator_marked_stays() -> None:
    """A stretch that somebody said is normal is left in, however strange it looks."""
    marked = np.zeros(ROWS, np.bool_)
    marked[195:220] = True
    plan = make_plan(_history(_shifted(_normal(ROWS, 2), 200), marked), OPTIONS)
    assert ordinary_samples(plan)[195:220].all()


def test_a_history_that_is_strange_throughout_is_left_whole() -> None:
    """No more than a tenth of the rows goes, and a history that loses none is the very plan that was given."""
    values = _normal(ROWS, 3)
    for number, sensor in enumerate((0, 1, 2, 3)):
        values = _shifted(values, 60 + 80 * number, 25 + number, sensor)
    plan = make_plan(_history(values), OPTIONS)
    kept, lost = without_faults(plan)
    assert (kept is plan) == (lost == 0)
    assert lost <= 0.1 * ROWS


def test_a_long_history_is_left_to_trimming() -> None:
    """Of a history with a block of its own for calibration nothing is left out here."""
    plan = make_plan(_history(_shifted(_normal(SHORT_HISTORY, 4), 500)), OPTIONS)
    assert without_faults(plan) == (plan, 0)


def test_each_asset_loses_its_own_rows() -> None:
    """With several assets, a fault of the second leaves the first as it was."""
    values = _shifted(_normal(2 * ROWS, 5), ROWS + 200)
    plan, lost = without_faults(make_plan(_history(values, assets=2), OPTIONS))
    first, second = plan.cleaned.series
    assert len(first.ticks) >= ROWS - 2 * MARGIN - 2
    assert lost == 2 * ROWS - len(first.ticks) - len(second.ticks)
    assert 200 not in second.ticks


def test_missing_cells_say_nothing() -> None:
    """A history with holes, and with a sensor that is hardly ever there, is screened like any other."""
    values = _shifted(_normal(ROWS, 6), 200)
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    values[5:, 3] = np.nan
    values[:5, 3] = 1.0
    values[200, 0] = 30.0
    keep = ordinary_samples(make_plan(_history(values), OPTIONS))
    assert not keep[200]
    assert keep.mean() > 0.85


@pytest.mark.parametrize("trimming", [True, False])
def test_the_forecaster_is_fitted_without_the_fault(trimming: bool, tmp_path: Path) -> None:
    """The scale of a sensor's level is that of the clean history only where the fault was screened out."""
    clean = _normal(ROWS, 7)
    options = replace(OPTIONS, parts=Parts(trimming=trimming))

    def spread(values: Float32) -> float:
        scale = trainer.fit.fit_detector(_history(values), options, tmp_path).bundle.manifest.scaling.scale
        return float(scale[0])

    ratio = spread(_shifted(clean, 200)) / spread(clean)
    assert (ratio < 1.1) == trimming
