"""Laws of the data report: what is planted in a history is found where it is, and a sound history is left in peace."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.types import Float32
from tests.commands import run, table, text
from trainer.cleaning import Cleaned, Series
from trainer.cli import main
from trainer.inspection import DataReport, inspect

ROWS = 4000
SENSORS = ("flow_m3h", "pressure_bar", "temp_c")


def _sound(seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    slow = np.sin(np.arange(ROWS)[:, None] / np.array([37.0, 11.0, 53.0]))
    return np.asarray(np.array([40.0, 6.0, 60.0]) + slow + 0.2 * rng.normal(size=(ROWS, 3)), np.float32)


def _cleaned(values: Float32, counted: dict[str, int] | None = None) -> Cleaned:
    constant = tuple(name for name, column in zip(SENSORS, values.T, strict=True) if np.nanstd(column) == 0)
    series = (Series("asset", np.arange(len(values)), values, None),)
    return Cleaned(SENSORS, 60.0, 0.0, series, counted or {}, (), constant, len(values))


def _found(change: Callable[[Float32], object]) -> DataReport:
    values = _sound()
    change(values)
    return inspect(_cleaned(values))


@given(seed=st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_a_sound_history_has_no_warning(seed: int) -> None:
    """Waves and noise that nothing is wrong with are warned of by nothing."""
    assert inspect(_cleaned(_sound(seed))).all_warnings == []


def _set(rows: slice, value: float) -> Callable[[Float32], object]:
    return lambda values: values.__setitem__((rows, 0), value)


def _add(rows: slice, value: float) -> Callable[[Float32], object]:
    return lambda values: values.__setitem__((rows, 0), values[rows, 0] + value)


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (_set(slice(None), 40.0), "constant"),
        (_set(slice(20, None), 40.0), "nearly constant"),
        (_set(slice(0, 2500), np.nan), "missing in 62% of the samples"),
        (_set(slice(1000, 1300), 40.0), "frozen 1 times, 300 equal readings in a row at most (18000 s)"),
        (_set(slice(1000, 1003), -9999.0), "3 readings far out of the others, such as -9999"),
        (_add(slice(2000, None), 12.0), "level steps from 40"),
        (lambda v: v.__setitem__((slice(1000, 2000), 0), v[1000:2000, 0] / 0.06), "two units? around 66"),
        (lambda v: v.__setitem__((slice(None), 2), 3 * v[:, 0] + 5), "moves as flow_m3h does"),
        (lambda v: v.__setitem__((slice(None), 0), np.cumsum(v[:, 0] - 38.0) % 6000), "only ever rises, a counter"),
    ],
)  # fmt: skip
def test_what_is_planted_is_found(change: Callable[[Float32], object], warning: str) -> None:
    """Each thing that can be wrong with a sensor is named, at the sensor that has it and at no other."""
    warnings = _found(change).all_warnings
    assert len(warnings) == 1
    assert warning in warnings[0]
    assert warnings[0].startswith(("flow_m3h: ", "temp_c: moves"))


def test_a_drift_is_no_step() -> None:
    """A level that wanders slowly to another one is not said to step there."""
    report = _found(
        lambda values: values.__setitem__((slice(None), 0), values[:, 0] + np.linspace(0, 12, ROWS))
    )
    assert not any("steps" in text for text in report.all_warnings)


def test_a_tank_that_fills_and_empties_is_no_counter() -> None:
    """What falls as soon as it is full, once in a thousand rows, is a level and no counter."""
    report = _found(lambda v: v.__setitem__((slice(None), 0), np.arange(ROWS) % 1000 + 0.2 * v[:, 0]))
    assert not any("counter" in text for text in report.all_warnings)


def test_a_valve_may_stand_at_its_ends() -> None:
    """Long stands at the ends of a range are what a valve does, and are not called frozen."""
    report = _found(lambda values: np.clip(values[:, 0], 39.8, 40.2, out=values[:, 0]))
    assert report.all_warnings == []
    assert report.sensors[0].longest_hold >= 20


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("time moved to the grid", "10% of the rows stand off the grid"),
        ("row out of order", "out of order"),
        ("duplicate time", "have the time of another row"),
        ("row merged into the tick of another", "share a tick of 60 s"),
        ("time not readable", "have a time that cannot be read"),
    ],
)
def test_a_clock_that_is_odd_is_told(kind: str, text: str) -> None:
    """What cleaning counted of the times is a warning where it is more than a few rows."""
    assert text in inspect(_cleaned(_sound(), {kind: ROWS // 10})).warnings[0]
    assert inspect(_cleaned(_sound(), {kind: ROWS // 100})).warnings == ()


def test_correlations_are_those_of_the_rows_that_have_both() -> None:
    """With cells missing here and there, the correlation is that of the pairs, as numpy has it."""
    values = _sound()
    values[:, 1] += values[:, 0]
    rng = np.random.default_rng(1)
    values[rng.random(values.shape) < 0.2] = np.nan
    first, second, r = inspect(_cleaned(values)).correlations[0]
    assert {first, second} == {"flow_m3h", "pressure_bar"}
    both = np.isfinite(values[:, :2]).all(axis=1)
    assert abs(r - np.corrcoef(values[both, 0], values[both, 1])[0, 1]) < 0.02


def test_every_asset_has_its_gaps() -> None:
    """Gaps, span and labels are told for each asset."""
    values = _sound()[:100]
    ticks = np.r_[np.arange(50), 60 + np.arange(50)]
    labels = (np.arange(100) >= 75).astype(np.int8)
    one, two = Series("a", ticks, values, labels), Series("b", np.arange(100), values, None)
    report = inspect(Cleaned(SENSORS, 60.0, 30.0, (one, two), {}, (), (), 200))
    assert [(asset.gaps, asset.longest_gap_seconds) for asset in report.assets] == [(1, 600.0), (0, 0.0)]
    assert [asset.labelled for asset in report.assets] == [0.25, None]
    assert (report.assets[0].first, report.assets[0].last) == (30.0, 30.0 + 109 * 60.0)


def test_two_assets_in_two_units_are_told_apart() -> None:
    """An asset whose sensor reads in another unit than that of the others is named."""
    values, other = _sound(1), _sound(2)
    other[:, 1] *= 14.5038
    series = (Series("a", np.arange(ROWS), values, None), Series("b", np.arange(ROWS), other, None),
              Series("c", np.arange(ROWS), _sound(3), None))  # fmt: skip
    (warning,) = inspect(Cleaned(SENSORS, 60.0, 0.0, series, {}, (), (), 3 * ROWS)).all_warnings
    assert warning.startswith("pressure_bar: two units? around 8")
    assert "of b" in warning
    assert "bar to psi" in warning


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A file with one column twice."""
    rows = table(400)
    for row in rows:
        row.append("copy" if row[0] == "time" else row[1])
    path = tmp_path / "pump.csv"
    path.write_bytes(text(rows))
    return path


def test_the_command_prints_a_report(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`trainer inspect` shows every sensor, the assets and the warnings; as JSON, the same in one object."""
    shown = run(main, capsys, "inspect", "--history", history)
    assert shown.code == 0
    for word in (
        "pressure",
        "temperature",
        "flow",
        "copy",
        "samples",
        "warning: copy: moves as pressure does",
    ):
        assert word in shown.out
    record: dict[str, Any] = run(main, capsys, "inspect", "--history", history, "--json").record()
    assert [one["name"] for one in record["sensors"]] == ["pressure", "temperature", "flow", "copy"]
    assert record["warnings"] == ["copy: moves as pressure does (|r| above 0.999): the same quantity twice?"]
    assert json.dumps(record, allow_nan=False)
