"""Laws of counters: what only ever rises is left out of a fit, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.bundle import read_bundle
from edge_agent.contract.types import Float32
from trainer.cleaning import Cleaned, Series
from trainer.cli import main
from trainer.counters import LEAST_STEPS, is_counter, without_counters

ROWS = 2000


def _metered(seed: int = 0) -> Float32:
    """Return (n, 3) of a load that goes up and down, its energy, and the hours of operation, as float32."""
    rng = np.random.default_rng(seed)
    load = 50.0 + 20.0 * np.sin(np.arange(ROWS) / 100.0) + rng.normal(size=ROWS)
    energy = 1e5 + np.cumsum(load / 60.0)
    return np.stack([load, energy, 1000.0 + np.arange(ROWS) / 60.0], axis=1).astype(np.float32)


def _cleaned(values: Float32) -> Cleaned:
    half = len(values) // 2
    series = tuple(
        Series(name, np.arange(len(part)), part, None)
        for name, part in (("a", values[:half]), ("b", values[half:]))
    )
    return Cleaned(("load", "energy", "hours"), 60.0, 0.0, series, {}, (), (), len(values))


def test_counters_are_left_out_by_name() -> None:
    """Meters and hours go, with a notice that names them; the other sensors keep their values in every asset."""
    values = _metered()
    found = without_counters(_cleaned(values), ())
    assert found.sensors == ("load",)
    np.testing.assert_array_equal(np.concatenate([one.values[:, 0] for one in found.series]), values[:, 0])
    assert "energy, hours" in found.notices[-1]


def test_what_is_to_stay_stays() -> None:
    """A counter that is named as an input is kept, and a history of nothing but counters as it is."""
    assert without_counters(_cleaned(_metered()), ("hours",)).sensors == ("load", "hours")
    only = _metered()
    only[:, 0] = only[:, 1]
    assert without_counters(_cleaned(only), ()).sensors == ("load", "energy", "hours")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), resets=st.integers(0, 1), missing=st.floats(0.0, 0.5))
def test_a_counter_is_one_however_it_is_read(seed: int, resets: int, missing: float) -> None:
    """Steps of any size, a stand, a reset and readings that are missing do not hide it."""
    rng = np.random.default_rng(seed)
    steps = rng.exponential(size=5 * ROWS) * (rng.random(5 * ROWS) < 0.5)
    count = np.cumsum(steps)
    if resets:
        count = count % (0.6 * count[-1])
    assert is_counter([count[rng.random(len(count)) >= missing].astype(np.float32)])


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(ROWS),
        (np.arange(ROWS) > ROWS // 2) * 1.0,
        np.arange(ROWS) % 1000,
        np.linspace(0.0, 10.0, ROWS) + np.random.default_rng(0).normal(size=ROWS),
        np.arange(LEAST_STEPS),
    ],
    ids=["constant", "one step", "tank", "drift with noise", "too short to tell"],
)
def test_what_else_rises_is_no_counter(values: Float32) -> None:
    """Constants, switches, tanks that are emptied, drifts and short histories are left alone."""
    assert not is_counter([values.astype(np.float32)])


def test_a_fit_says_what_it_left_out_and_judges_by_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`trainer fit` names the counters, and the bundle judges a history that still has them."""
    path = tmp_path / "history.csv"
    values = np.c_[_metered(), _metered(1)[:, :1]]
    table = np.c_[1.7e9 + 60.0 * np.arange(ROWS), values]
    np.savetxt(path, table, delimiter=",", header="time,load,energy,hours,other", comments="", fmt="%.3f")
    out = tmp_path / "bundle"
    assert main(["fit", "--history", str(path), "--out", str(out), "--units", "4", "--epochs", "1"]) == 0
    assert "energy, hours" in "".join(capsys.readouterr())
    manifest = read_bundle(out).manifest
    assert manifest.sensor_names == ("load", "other")
    assert manifest.unused == ("energy", "hours")
    assert main(["evaluate", "--bundle", str(out), "--history", str(path), "--json"]) == 0
