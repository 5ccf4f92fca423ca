"""Laws of an evaluation: one causal pass, asset by asset, each label at its row, None where nothing is defined."""

import math
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import AlarmEvent
from edge_agent.detector import load_detector
from edge_agent.history import History
from tests.tiny_machine import SENSORS, START, TINY_BUNDLE, WINDOW, faulty_values, normal_values
from trainer import calibrate
from trainer.cleaning import Cleaned, clean
from trainer.evaluate import Evaluation, evaluate

COUNT = 200
FAULT = (90, 130)


def _cleaned(*assets: int, count: int = COUNT) -> Cleaned:
    """Return the history of some of two assets, of which the second has a labelled fault and missing cells."""
    rows = np.arange(count)
    holed = faulty_values(count, *FAULT, seed=2)
    holed[150::9, 1] = np.nan
    values = [normal_values(count, 1), holed]
    label = [np.zeros(count, np.int8), ((rows >= FAULT[0]) & (rows < FAULT[1])).astype(np.int8)]
    history = History(
        "file.csv",
        SENSORS,
        tuple(("one", "two")[asset] for asset in assets),
        np.repeat(np.arange(len(assets)), count),
        np.tile(START + rows.astype(np.float64), len(assets)),
        np.concatenate([values[asset] for asset in assets]),
        np.concatenate([label[asset] for asset in assets]),
        (),
        {},
    )
    return clean(history)


def _evaluated(cleaned: Cleaned) -> Evaluation:
    return evaluate(load_detector(TINY_BUNDLE), cleaned, "file.csv")


def _facts(events: tuple[AlarmEvent, ...]) -> list[tuple[str, float, float, str]]:
    return [(event.kind, event.time, event.onset_time, event.sensors[0].name) for event in events]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks_are_one_pass(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the samples are cut into chunks, forecasts, scores, alarms and events are those of one pass."""
    cleaned = _cleaned(0, 1)
    expected = _evaluated(cleaned)
    monkeypatch.setattr(calibrate, "CHUNK", size)
    done: list[int] = []
    found = evaluate(load_detector(TINY_BUNDLE), cleaned, "file.csv", done.append)
    assert (max(done), sum(done)) == (size, 2 * COUNT)
    for name in ("forecast", "score", "statistic"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.alarm, expected.alarm)
    assert {event.kind for event in expected.events} >= {"start", "end"}
    assert _facts(found.events) == _facts(expected.events)


def test_each_asset_is_evaluated_as_if_alone() -> None:
    """Two assets in one history have the scores, alarms and labels that each has alone, one asset after the other."""
    both, alone = _evaluated(_cleaned(0, 1)), [_evaluated(_cleaned(asset)) for asset in (0, 1)]
    assert both.assets == ("one", "two")
    np.testing.assert_array_equal(both.asset, np.repeat([0, 1], COUNT))
    for name in ("time", "values", "forecast", "score", "statistic", "alarm", "labels"):
        parts = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_allclose(getattr(both, name), parts, rtol=1e-6, atol=1e-6)
    assert _facts(both.events) == _facts((*alone[0].events, *alone[1].events))


def test_persistence_does_not_reach_from_one_asset_into_the_next() -> None:
    """The first sample of an asset has no sample before it: cells judged and squares are those of both assets alone."""
    manifest = load_detector(TINY_BUNDLE).bundle.manifest
    cleaned = _cleaned(0, 1)
    # Far from the first asset, a difference across the border would be seen.
    shifted = replace(cleaned.series[1], values=cleaned.series[1].values + np.float32(1000.0))
    both = _evaluated(replace(cleaned, series=(cleaned.series[0], shifted))).figures(manifest)
    alone = [
        _evaluated(replace(cleaned, series=(one,))).figures(manifest) for one in (cleaned.series[0], shifted)
    ]
    for place in range(len(SENSORS)):
        parts = [one["sensors"][place] for one in alone]
        together = both["sensors"][place]
        assert together["samples"] == sum(part["samples"] for part in parts)
        square = sum(part["samples"] * part["persistence_rmse"] ** 2 for part in parts)
        assert together["persistence_rmse"] == pytest.approx(
            math.sqrt(square / together["samples"]), rel=1e-6
        )


def test_labels_stand_at_their_rows_or_are_not_known() -> None:
    """A label belongs to the sample of its time; where one asset has none, none are known and no figure needs them."""
    cleaned = _cleaned(0, 1)
    found = _evaluated(cleaned)
    assert found.labels is not None
    labelled = np.flatnonzero(found.labels)
    assert set(found.asset[labelled]) == {1}
    np.testing.assert_array_equal(found.time[labelled], START + np.arange(*FAULT))
    part = replace(cleaned, series=(replace(cleaned.series[0], labels=None), cleaned.series[1]))
    unknown = _evaluated(part)
    figures = unknown.figures(load_detector(TINY_BUNDLE).bundle.manifest)
    assert unknown.labels is None
    assert (figures["recall"], figures["false_alarms_per_week"]) == (None, None)
    assert figures["alarms_per_week"] > 0


def test_what_is_not_defined_is_none() -> None:
    """Of a history no longer than the warm-up nothing is scored: every figure is None, and the counts are numbers."""
    count = 20
    cleaned = _cleaned(0, count=count)
    series = cleaned.series[0]
    short = replace(
        series,
        ticks=series.ticks[:WINDOW],
        values=series.values[:WINDOW],
        labels=None if series.labels is None else series.labels[:WINDOW],
    )
    found = _evaluated(replace(cleaned, series=(short,)))
    figures = found.figures(load_detector(TINY_BUNDLE).bundle.manifest)
    assert (figures.pop("samples"), figures.pop("scored")) == (WINDOW, 0)
    assert [one["rmse"] for one in figures.pop("sensors")] == [None] * len(SENSORS)
    assert {key: value for key, value in figures.items() if value is not None} == {}


def test_sensors_are_matched_by_name() -> None:
    """The order of the columns changes nothing, and one that is not there counts as missing throughout."""
    cleaned = _cleaned(1)
    series = cleaned.series[0]
    turned = replace(cleaned, sensors=SENSORS[::-1], series=(replace(series, values=series.values[:, ::-1]),))
    np.testing.assert_array_equal(_evaluated(turned).score, _evaluated(cleaned).score)
    fewer = replace(cleaned, sensors=SENSORS[:2], series=(replace(series, values=series.values[:, :2]),))
    assert np.isnan(_evaluated(fewer).values[:, 2]).all()


def test_a_history_of_another_interval_is_refused() -> None:
    """Samples that do not stand on the bundle's grid are refused by file and both intervals."""
    with pytest.raises(HistoryError, match=r"file\.csv: sampled every 2 s, the bundle needs 1 s"):
        _evaluated(replace(_cleaned(0), interval=2.0))
