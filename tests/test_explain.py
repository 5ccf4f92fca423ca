"""Laws of the explanation: attributions sum to what they explain, and the command names what it was asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.bundle import read_bundle
from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Float32
from edge_agent.detector import load_detector
from edge_agent.history import read_history
from tests.commands import run, table, text
from tests.tiny_machine import SENSORS, START, TINY_BUNDLE, faulty_values, samples_of
from trainer.cleaning import clean
from trainer.cli import main
from trainer.evaluate import evaluate
from trainer.explain import LagGroups, attribute, moment_of
from trainer.gradients import integrated_gradients
from trainer.model import ForecasterWeights, ModelSpec
from trainer.shapley import shapley_values

FAULT = (200, 240)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny machine with a fault."""
    path = tmp_path_factory.mktemp("explain") / "pump.csv"
    path.write_bytes(text(table(300, FAULT)))
    return path


def _weights(spec: ModelSpec) -> ForecasterWeights:
    rng = np.random.default_rng(1)

    def some(*shape: int) -> Float32:
        return rng.normal(0.0, 0.6, shape).astype(np.float32)

    widths = (spec.inputs, *spec.units)
    layers = tuple(
        (some(width, 4 * units), some(units, 4 * units), some(4 * units))
        for width, units in zip(widths, spec.units, strict=False)
    )
    highway = some((1 + len(spec.spans)) * spec.sensors + 1, spec.outputs)
    return ForecasterWeights(spec, layers, some(spec.units[-1], spec.outputs), some(spec.outputs), highway)


def test_integrated_gradients_are_complete() -> None:
    """They sum to the forecast less that of the baseline, for each sensor, in an LSTM that bends them."""
    rng = np.random.default_rng(0)
    window, baseline = rng.normal(0, 1.5, (2, 12, 4)).astype(np.float32)
    found = integrated_gradients(_weights(ModelSpec(2, 12, units=(6, 5))), window, baseline, [0, 1])
    assert np.abs(found.forecast - found.baseline).min() > 0.1
    np.testing.assert_allclose(found.gap, 0.0, atol=1e-4)


def test_integrated_gradients_of_a_straight_line_are_its_slopes() -> None:
    """Where the LSTM says nothing, a cell's part is its weight in the ridge regression times its distance."""
    spec = ModelSpec(2, 8, units=(3,))
    weights = _weights(spec)
    silent = ForecasterWeights(
        spec, weights.layers, np.zeros_like(weights.head_kernel), weights.head_bias, weights.highway
    )
    window = np.random.default_rng(2).normal(0, 1, (8, 4)).astype(np.float32)
    found = integrated_gradients(silent, window, np.zeros_like(window), [1])
    slopes = [weights.highway[place, 1] for place in range(2)]
    for sensor, slope in enumerate(slopes):
        slower = sum(
            gain * weights.highway[2 * (1 + number) + sensor, 1]
            for number, gain in enumerate(2.0 / (np.array(spec.spans) + 1.0))
        )
        np.testing.assert_allclose(
            found.cells[0, -1, sensor], (slope + slower) * window[-1, sensor], rtol=1e-4
        )
    np.testing.assert_allclose(found.cells[0, :, 2:], 0.0, atol=1e-6)


def test_shapley_values_are_those_of_the_definition() -> None:
    """For two players with a common gain each has its own part and half of what both have together; they sum up."""
    players = np.array([[0, 1]])

    def forecast(windows: Float32) -> Float32:
        a, b = windows[:, 0, 0], windows[:, 0, 1]
        return np.stack([3 * a + b + 4 * a * b, b], axis=1)

    found = shapley_values(forecast, np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32), players)
    np.testing.assert_allclose(found, [[5.0, 3.0], [0.0, 1.0]], atol=1e-6)


@given(st.integers(1, 300))
def test_lags_are_grouped_without_a_gap(length: int) -> None:
    """Groups cover every lag of a window once, the newest alone, and each row belongs to the group of its lag."""
    lags = LagGroups.of(length)
    covered = [lag for first, last in lags.bounds.tolist() for lag in range(first, last + 1)]
    assert covered == list(range(1, length + 1))
    assert lags.bounds[0].tolist() == [1, 1]
    for row, group in enumerate(lags.of_rows(length).tolist()):
        first, last = lags.bounds[group]
        assert first <= length - row <= last


def test_shapley_values_of_a_bundle_sum_to_its_forecast() -> None:
    """On the graph that the agent runs, they sum to what the forecast from the window has over the baseline's."""
    bundle = read_bundle(TINY_BUNDLE)
    moment = moment_of(bundle, samples_of(faulty_values(260, *FAULT)), "p1", START + 210)
    for one in attribute(moment, [0, 2]):
        assert one.shapley is not None
        assert one.gradients is None
        assert one.shapley.sum() == pytest.approx(one.from_window - one.from_baseline, rel=1e-5)
        assert one.inputs == SENSORS


def test_the_moment_is_what_the_daemon_saw(history: Path) -> None:
    """Score, statistic, forecast and shares of a sample are those of an evaluation and of its alarm event."""
    found = evaluate(load_detector(TINY_BUNDLE), clean(read_history([history])), str(history))
    (start, *_) = [event for event in found.events if event.kind == "start"]
    row = int(np.flatnonzero(found.time == start.start_time)[0])
    samples = samples_of(found.values)
    moment = moment_of(read_bundle(TINY_BUNDLE), samples, "p1", START + row)
    assert moment.score == pytest.approx(found.score[row], abs=1e-9)
    assert moment.statistic == pytest.approx(found.statistic[row], abs=1e-9)
    np.testing.assert_allclose(moment.forecast, found.forecast[row], rtol=1e-6)
    told = {one.name: one.share for one in start.sensors}
    np.testing.assert_allclose(moment.shares, [told[name] for name in SENSORS], atol=1e-9)


@pytest.mark.parametrize("tick", [START - 5, START + 3])
def test_a_sample_without_a_score_is_refused(tick: int) -> None:
    """A time without a sample, or one in the warm-up, has nothing to explain."""
    with pytest.raises(HistoryError, match=r"no sample|no score"):
        moment_of(read_bundle(TINY_BUNDLE), samples_of(faulty_values(60, 70, 80)), "p1", tick)


# The command.


def test_the_command_explains_an_alarm(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--alarm 1` is where the first alarm opened; the record sums up and its pictures are drawn."""
    said = run(
        main, capsys, "explain", "--bundle", TINY_BUNDLE, "--history", history, "--alarm", 1, "--no-shap",
        "--plots", tmp_path / "plots", "--json",
    )  # fmt: skip
    record = said.record()
    assert said.code == 0
    assert START + FAULT[0] <= record["time"] <= START + FAULT[0] + 10
    assert sum(one["contribution"] for one in record["sources"]) == pytest.approx(record["log_statistic"])
    assert record["sensors"][0]["name"] == "pressure"
    assert len(record["forecasts"]) == 3
    drawn = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert drawn == ["explain_sensors.png", "explain_sources.png"]


@pytest.mark.parametrize("at", [str(START + 210), "2023-11-14T22:16:50Z", "2023-11-14T23:16:50.4+01:00"])
def test_a_time_may_be_written_in_any_way(at: str, history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds since 1970 and RFC 3339 in any zone mean the same sample, the newest at that time."""
    said = run(
        main, capsys, "explain", "--bundle", TINY_BUNDLE, "--history", history, "--at", at, "--no-shap", "--json",
        "--sensor", "flow",
    )  # fmt: skip
    record = said.record()
    assert record["time"] == START + 210
    assert [one["sensor"] for one in record["forecasts"]] == ["flow"]


@pytest.mark.parametrize(
    ("words", "code", "rule"),
    [
        (("--at", "noon"), 2, "--at: is 'noon', must be RFC 3339"),
        (("--at", "2030-01-01T00:00:00Z"), 1, "no sample at 2030-01-01T00:00:00Z; the nearest is at"),
        (("--alarm", "9"), 1, "--alarm 9: the history has"),
        (("--sensor", "mood"), 1, "--sensor mood: the bundle knows pressure"),
        (("--asset", "p9"), 1, "no asset p9; there are"),
    ],
)
def test_the_command_refuses_in_one_line(
    words: tuple[str, ...], code: int, rule: str, history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What does not exist is refused by its name."""
    said = run(main, capsys, "explain", "--bundle", TINY_BUNDLE, "--history", history, "--no-shap", *words)
    assert said.code == code
    assert rule in said.refusal()


def test_an_explanation_goes_into_a_report(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `explain --json` printed is shown by `report --explain`."""
    said = run(
        main,
        capsys,
        "explain",
        "--bundle",
        TINY_BUNDLE,
        "--history",
        history,
        "--sensor",
        "pressure",
        "--json",
    )
    kept = tmp_path / "explain.json"
    kept.write_text(json.dumps(said.record()), encoding="utf-8")
    out = tmp_path / "report.html"
    words = ("report", "--bundle", TINY_BUNDLE, "--history", history, "--out", out, "--explain", kept)
    assert run(main, capsys, *words).code == 0
    assert "SHAP: which readings made the forecast of pressure" in out.read_text(encoding="utf-8")
