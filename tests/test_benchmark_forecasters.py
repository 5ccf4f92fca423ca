"""Laws of the comparison of forecasters: the same detector on each, judged on the same normal cells."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.benchmarks.readme_table import README
from tests.tiny_benchmarks import tiny_case
from trainer.benchmark.cases import Verdict
from trainer.benchmark.forecasters import (
    ALONE,
    BOTH,
    COLUMNS,
    PERSISTENCE,
    RIDGE,
    contenders,
    forecasters_report,
    forecasters_table,
)
from trainer.benchmark.forewarn import Forewarn, ForewarnOptions
from trainer.benchmark.mistakes import Mistakes, mistakes_of
from trainer.benchmark.plant import Plant, PlantSize, PlantTally
from trainer.benchmark.runner import Result

SIZE = PlantSize(3.0, 2.0, 1)


def _nothing() -> Mistakes:
    case = tiny_case(test=60, fault=(30, 40))
    silent = np.zeros(60, np.bool_)
    return mistakes_of(case, Verdict(silent.astype(np.float64), silent, np.empty(0, np.int64)))


def _tally(rmse: float, false: int = 0) -> PlantTally:
    faults, found = Counter({"leak": 2}), Counter({"leak": 1})
    return PlantTally(
        "stationary", 2.0, false, 100, 0, faults, found, found, None, None, None, 100.0 * rmse**2, 100
    )


def test_persistence_forecasts_the_sample_before() -> None:
    """What the detector on persistence expects of a row is the row before it, but for a reading that may be a spike."""
    case = tiny_case(history=2500)
    verdict = Forewarn(ForewarnOptions("persistence")).judge(case, 0)
    assert verdict.forecast is not None
    apart = ~np.isclose(verdict.forecast[1:], case.test_values[:-1], rtol=1e-4, atol=1e-3)
    first = int(np.flatnonzero(case.labels)[0])
    assert not apart[np.arange(len(apart)) != first].any()
    assert apart[first].sum() == 1


def test_persistence_holds_in_a_history_cut_into_folds() -> None:
    """A short history, of which each fold has a forecaster, is forecast by persistence as well."""
    case = tiny_case(history=500)
    verdict = Forewarn(ForewarnOptions("persistence")).judge(case, 0)
    assert verdict.forecast is not None
    np.testing.assert_allclose(verdict.forecast[1:], case.test_values[:-1], rtol=1e-4, atol=1e-3)


def test_the_four_differ_in_the_forecaster_alone() -> None:
    """Each has its name; only the released one has both the LSTM and the ridge regression."""
    found = {one.name: one for one in contenders(ForewarnOptions("lstm", epochs=3))}
    assert list(found) == [PERSISTENCE, RIDGE, ALONE, BOTH]
    options = {name: one.options for name, one in found.items() if isinstance(one, Forewarn)}
    assert [options[name].forecaster for name in found] == ["persistence", "ridge", "lstm", "lstm"]
    assert [options[name].highway for name in (ALONE, BOTH)] == [False, True]
    assert all(replace(one, forecaster="lstm", highway=True) == options[BOTH] for one in options.values())


def test_the_error_is_that_of_normal_cells_in_deviations_of_the_history() -> None:
    """Faulty rows and cells without a forecast count for nothing, and each sensor is judged by its own scale."""
    case = tiny_case()
    scale = case.history_values.astype(np.float64).std(axis=0)
    forecast = (case.test_values + 0.5 * scale).astype(np.float32)
    forecast[case.labels > 0] = 1e6
    forecast[3, 1] = np.nan
    silent = np.zeros(len(forecast), np.bool_)
    verdict = Verdict(silent.astype(np.float64), silent, np.empty(0, np.int64), forecast=forecast)
    tally = Plant().tally(case, verdict)
    assert tally.cells == int((case.labels == 0).sum()) * len(case.sensors) - 1
    assert Plant().case_figures(tally)["forecast_rmse"] == pytest.approx(0.5, rel=1e-3)
    blind = Plant().tally(case, replace(verdict, forecast=None))
    assert Plant().case_figures(blind)["forecast_rmse"] is None


def test_the_record_holds_each_forecaster_beside_the_ridge_of_its_seed() -> None:
    """Means and spreads are over the seeds, the gain is taken seed by seed, and every RMSE is kept."""
    errors = {PERSISTENCE: (2.0, 4.0), RIDGE: (1.0, 2.0), ALONE: (1.0, 1.0), BOTH: (0.5, 1.0)}
    results = [
        Result(name, "stationary", seed, _tally(rmse, false=seed), _nothing())
        for name, of_name in errors.items()
        for seed, rmse in enumerate(of_name)
    ]
    record = forecasters_report(Plant(SIZE), results, 2)
    found = record["forecasters"]
    assert list(found) == [PERSISTENCE, RIDGE, ALONE, BOTH]
    assert found[PERSISTENCE]["rmse_over_ridge"] == pytest.approx(2.0)
    assert found[BOTH]["rmse_over_ridge"] == pytest.approx(0.5)
    assert found[BOTH]["spread"]["rmse_over_ridge"] == pytest.approx(0.0)
    assert found[ALONE]["rmse_by_seed"] == pytest.approx([1.0, 1.0])
    assert (found[RIDGE]["event_recall"], found[RIDGE]["false_alarms"]) == (0.5, 0.5)
    assert (record["history_weeks"], record["test_weeks"], record["forecast_rmse"]) == (3.0, 2.0, 0.75)
    header, rows = forecasters_table(record)
    assert {len(row) for row in rows} == {len(header)} == {1 + len(COLUMNS)}


def test_the_readme_tells_of_the_command() -> None:
    """The command that prints it stands where the benchmarks are told of."""
    assert "trainer benchmark plant --compare-forecasters" in README.read_text("utf-8")
