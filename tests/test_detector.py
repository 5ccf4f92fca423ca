"""Laws of the detector, on a real bundle: how samples are fed changes nothing."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import BundleError
from edge_agent.contract.scoring_model import NOTHING_USUAL
from edge_agent.contract.types import AlarmEvent, Float32, Float64, Outcomes, QualityEvent, Samples
from edge_agent.detector import Detector, load_detector, open_detector
from edge_agent.detector_state import DetectorState
from edge_agent.forecast_chain import RESUMING
from tests.tiny_machine import (
    SENSORS,
    START,
    TINY_BUNDLE,
    WINDOW,
    faulty_values,
    interleaved,
    normal_values,
    pick,
    samples_of,
)

COUNT = 90
GAP = 10
"""What the bundle bridges at most, in ticks."""


def _fleet() -> Samples:
    """Return three assets whose samples come mixed: one faulty, one with missing cells and ticks and a dead sensor."""
    holed = normal_values(COUNT, 3)
    holed[40:60, 1] = -9999.0
    holed[np.random.default_rng(0).random(holed.shape) < 0.2] = np.nan
    sparse = samples_of(holed, 2)
    kept = np.flatnonzero(np.isfinite(holed).any(axis=1) & (np.arange(COUNT) % 7 != 3))
    faulty = samples_of(faulty_values(COUNT, 30, 60, seed=2), 1)
    return interleaved([samples_of(normal_values(COUNT, 1)), faulty, pick(sparse, kept)])


def _fed(detector: Detector, parts: Iterable[Samples]) -> Outcomes:
    """Return the outcomes of all parts, one after the other."""
    done = [detector.process(part) for part in parts]
    names = ("asset", "tick", "time", "score", "statistic", "alarm", "forecast")
    joined = {name: np.concatenate([getattr(one, name) for one in done]) for name in names}
    return Outcomes(
        **joined,
        events=[event for one in done for event in one.events],
        quality=[event for one in done for event in one.quality],
        advice=[event for one in done for event in one.advice],
        factor=np.concatenate([one.factor for one in done if one.factor is not None]),
    )


def _by_asset(events: list[AlarmEvent]) -> list[tuple[int, int, str, float, float, str]]:
    """Return what identifies events, in order of asset and time."""
    facts = ("asset", "alarm_number", "kind", "time", "onset_time", "severity")
    return sorted(
        (tuple(getattr(event, fact) for fact in facts) for event in events), key=lambda one: one[:4]
    )


def _assert_same(found: Outcomes, expected: Outcomes) -> None:
    np.testing.assert_array_equal(found.asset, expected.asset)
    np.testing.assert_array_equal(found.time, expected.time)
    np.testing.assert_array_equal(found.alarm, expected.alarm)
    for name in ("score", "statistic", "forecast"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-6)
    assert _by_asset(found.events) == _by_asset(expected.events)
    assert sorted(found.quality, key=_place) == sorted(expected.quality, key=_place)


def _place(event: QualityEvent) -> tuple[int, float, str]:
    return event.asset, event.time, event.phase


@pytest.fixture(params=["step", "window"])
def mode(request: pytest.FixtureRequest) -> str:
    """Return each mode of inference."""
    return str(request.param)


@pytest.mark.parametrize("size", [1, 2, 3, 17, 100])
def test_batches_equal_one_by_one(mode: str, size: int) -> None:
    """Samples fed at once, one by one and in chunks give the same scores, forecasts and events."""
    samples = _fleet()
    expected = load_detector(TINY_BUNDLE, mode).process(samples)
    parts = [pick(samples, slice(at, at + size)) for at in range(0, len(samples), size)]
    found = _fed(load_detector(TINY_BUNDLE, mode), parts)
    assert {event.kind for event in expected.events} >= {"start", "end"}
    assert [event.phase for event in expected.quality] == ["start", "end"]
    _assert_same(found, expected)


def test_other_assets_change_nothing(mode: str) -> None:
    """An asset has alone the outcomes that it has in a fleet."""
    samples = _fleet()
    together = load_detector(TINY_BUNDLE, mode).process(samples)
    for asset in range(3):
        own = np.flatnonzero(samples.asset == asset)
        alone = load_detector(TINY_BUNDLE, mode).process(pick(samples, own))
        np.testing.assert_allclose(alone.statistic, together.statistic[own], rtol=1e-6)
        assert _by_asset(alone.events) == [one for one in _by_asset(together.events) if one[0] == asset]


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(1, 250))
def test_a_restart_changes_nothing(cut: int) -> None:
    """A state written and read back anywhere goes on as if nothing had happened."""
    samples = _fleet()
    first, second = pick(samples, slice(0, cut)), pick(samples, slice(cut, None))
    whole = load_detector(TINY_BUNDLE)
    expected = _fed(whole, [first, second])  # cut alike: other cuts may round otherwise
    before = load_detector(TINY_BUNDLE)
    early = before.process(first)
    after = load_detector(TINY_BUNDLE)
    after.state = DetectorState.from_bytes(before.state.to_bytes(), after.bundle)
    late = after.process(second)
    np.testing.assert_array_equal(np.r_[early.statistic, late.statistic], expected.statistic)
    assert [*early.events, *late.events] == expected.events
    assert [*early.quality, *late.quality] == expected.quality


def test_a_state_that_is_no_state_is_refused() -> None:
    """Empty, cut, foreign and other-sized states are refused in one line."""
    detector = load_detector(TINY_BUNDLE)
    detector.process(samples_of(normal_values(20)))
    stored = detector.state.to_bytes()
    for content in (
        b"",
        b"text",
        stored[:50],
        stored[: len(stored) // 2],
        stored[:-5],
        b"\x93NUMPY" + bytes(50),
    ):
        with pytest.raises(BundleError, match="detector state: ") as failure:
            DetectorState.from_bytes(content, detector.bundle)
        assert "\n" not in str(failure.value)


def test_nothing_is_scored_while_warming_up(mode: str) -> None:
    """The first scored sample is the one after the warm-up, and its forecast is the pending one."""
    outcomes = load_detector(TINY_BUNDLE, mode).process(samples_of(normal_values(30)))
    warm = np.arange(30) >= WINDOW
    np.testing.assert_array_equal(np.isfinite(outcomes.score), warm)
    np.testing.assert_array_equal(np.isfinite(outcomes.forecast).all(axis=1), warm)


def test_a_sample_is_never_in_the_window_that_forecasts_it(mode: str) -> None:
    """Changing a sample changes its own score and later forecasts, but not its own forecast."""
    values = normal_values(30)
    changed = values.copy()
    changed[20] += 5.0
    first = load_detector(TINY_BUNDLE, mode).process(samples_of(values))
    second = load_detector(TINY_BUNDLE, mode).process(samples_of(changed))
    np.testing.assert_allclose(first.forecast[:21], second.forecast[:21], rtol=1e-7)
    assert (first.forecast[21] != second.forecast[21]).all()
    assert first.statistic[20] < second.statistic[20]


def test_normal_life_raises_no_alarm(mode: str) -> None:
    """A thousand normal samples that were never seen raise nothing."""
    outcomes = load_detector(TINY_BUNDLE, mode).process(samples_of(normal_values(1000, 77)))
    assert not outcomes.events
    assert not outcomes.alarm.any()


@pytest.mark.parametrize("sensor", [0, 1, 2])
def test_a_fault_is_found_named_and_ended(mode: str, sensor: int) -> None:
    """A sensor that reads too high opens one alarm near its onset that names it, and its return closes it."""
    detector = load_detector(TINY_BUNDLE, mode)
    outcomes = detector.process(samples_of(faulty_values(300, 100, 200, sensor)))
    kinds = [event.kind for event in outcomes.events]
    assert (kinds[0], kinds[-1], kinds.count("start")) == ("start", "end", 1)
    start = outcomes.events[0]
    assert abs(start.onset_time - (START + 100)) <= 2
    assert start.start_time - start.onset_time <= 10
    name = detector.bundle.manifest.sensor_names[sensor]
    # A very high score opens with the first sample, in which a sensor that should have moved along may share the blame.
    assert name in [one.name for one in start.sensors[:2]]
    grown = [one.sensors[0] for one in outcomes.events if one.kind == "update" and one.time < START + 200]
    assert grown
    assert {(one.name, one.direction) for one in grown} == {(name, "above")}
    assert sum(one.share for one in start.sensors) == pytest.approx(1.0)
    assert START + 200 <= outcomes.events[-1].time <= START + 240


@pytest.mark.parametrize("gap", [1, GAP, GAP + 1, 100_000_000])
def test_only_a_long_gap_starts_over(mode: str, gap: int) -> None:
    """A gap up to the limit is bridged; after a longer one, however long, a few samples have no score.

    Of what was before it only the slow corrections of levels and forecasts count then.
    """
    values = normal_values(40)
    samples = samples_of(values)
    samples.tick[20:] += gap
    outcomes = load_detector(TINY_BUNDLE, mode).process(samples)
    unscored = int(np.isnan(outcomes.score[20:]).sum())
    assert unscored == (min(WINDOW, RESUMING) if gap > GAP else 0)
    samples.values[:20] = normal_values(20, 9)
    other = load_detector(TINY_BUNDLE, mode).process(samples)
    same = np.allclose(outcomes.statistic[20:], other.statistic[20:], atol=0.02, equal_nan=True)
    assert same == (gap > GAP)


@pytest.mark.parametrize("warmup", [WINDOW, RESUMING + 1, 40])
def test_a_long_warm_up_is_short_after_a_gap(mode: str, warmup: int) -> None:
    """After a long gap scoring resumes within ten samples, however long the first warm-up took, without an alarm."""
    bundle = load_detector(TINY_BUNDLE, mode).bundle
    detector = open_detector(replace(bundle, manifest=replace(bundle.manifest, warmup_ticks=warmup)), mode)
    samples = samples_of(normal_values(300, 8))
    samples.tick[100:] += 1000
    outcomes = detector.process(samples)
    unscored = np.flatnonzero(np.isnan(outcomes.score)).tolist()
    assert unscored == [*range(warmup), *range(100, 100 + min(warmup, RESUMING))]
    assert not outcomes.events
    one_by_one = _fed(
        open_detector(detector.bundle, mode), (pick(samples, slice(at, at + 1)) for at in range(300))
    )
    _assert_same(one_by_one, outcomes)


def test_a_gap_of_one_asset_does_not_touch_another(mode: str) -> None:
    """Bridging and starting over are each asset's own."""
    steady, jumping = samples_of(normal_values(40, 1)), samples_of(normal_values(40, 2), 1)
    jumping.tick[20:] += 5
    jumping.tick[30:] += 50
    together = load_detector(TINY_BUNDLE, mode).process(Samples.concatenate([steady, jumping], 3))
    alone = load_detector(TINY_BUNDLE, mode).process(steady)
    np.testing.assert_allclose(together.statistic[:40], alone.statistic, rtol=1e-6)


def test_missing_cells_are_scored_by_the_others(mode: str) -> None:
    """A sample that misses cells is scored as long as one sensor is there, without a false alarm."""
    values = normal_values(400, 4)
    holes = np.random.default_rng(4).random(values.shape) < 0.3
    holes[holes.all(axis=1)] = False
    values[holes] = np.nan
    outcomes = load_detector(TINY_BUNDLE, mode).process(samples_of(values))
    assert np.isfinite(outcomes.score[WINDOW:]).all()
    assert not outcomes.events


def test_a_dead_sensor_does_not_stop_the_others(mode: str) -> None:
    """A sensor that never sends leaves the others watched: no alarm without a fault, and theirs are still found."""
    calm, faulty = normal_values(300, 5), faulty_values(300, 150, 250, sensor=1, seed=5)
    for values in (calm, faulty):
        values[50:, 2] = np.nan
    assert not load_detector(TINY_BUNDLE, mode).process(samples_of(calm)).events
    outcomes = load_detector(TINY_BUNDLE, mode).process(samples_of(faulty))
    assert outcomes.events[0].sensors[0].name == "temperature"
    missing = next(one for one in outcomes.events[0].sensors if one.name == "flow")
    assert (missing.direction, missing.actual, missing.share) == ("missing", None, 0.0)
    assert outcomes.events[-1].kind == "end"


def test_room_for_more_assets_keeps_what_is_known() -> None:
    """Assets that join later do not disturb the state of those before them."""
    samples = samples_of(normal_values(60, 6))
    expected = load_detector(TINY_BUNDLE).process(samples)
    detector = load_detector(TINY_BUNDLE)
    early = detector.process(pick(samples, slice(0, 30)))
    detector.process(samples_of(normal_values(5, 7), asset=2000))
    late = detector.process(pick(samples, slice(30, None)))
    np.testing.assert_allclose(np.r_[early.statistic, late.statistic], expected.statistic, rtol=1e-12)
    assert len(detector.state.last_tick) >= 2001


def test_a_large_fleet_is_scored_like_one(mode: str) -> None:
    """Hundreds of equal assets in one call, beyond one batch of the graph, all get the same score."""
    values, assets = normal_values(12), 600
    detector = load_detector(TINY_BUNDLE, mode)
    outcomes = detector.process(
        Samples(
            np.tile(np.arange(assets), 12),
            np.repeat(START + np.arange(12), assets),
            np.repeat(values, assets, 0),
        )
    )
    alone = load_detector(TINY_BUNDLE, mode).process(samples_of(values))
    together = outcomes.statistic.reshape(12, assets)
    np.testing.assert_allclose(together, np.repeat(alone.statistic[:, None], assets, 1), rtol=1e-5)


def test_no_samples_are_no_fault() -> None:
    """Processing nothing gives nothing."""
    outcomes = load_detector(TINY_BUNDLE).process(Samples.empty(3))
    assert len(outcomes) == 0
    assert not outcomes.events


def _fused(detector: Detector, statistics: Float64) -> Float64:
    aspects = detector.scorer.aspects(statistics, np.zeros(len(statistics)))
    return detector.scorer.fuse(aspects, NOTHING_USUAL)


def test_measuring_is_processing_without_alarms(mode: str) -> None:
    """`measure` gives the forecasts of `process` and statistics that fuse to its own, and opens no alarm."""
    samples = samples_of(faulty_values(200, 100, 150))
    outcomes = load_detector(TINY_BUNDLE, mode).process(samples)
    detector = load_detector(TINY_BUNDLE, mode)
    forecast, statistics = detector.measure(samples)
    np.testing.assert_array_equal(forecast, outcomes.forecast)
    fused = _fused(detector, statistics[WINDOW:100])
    np.testing.assert_allclose(fused, outcomes.statistic[WINDOW:100], rtol=1e-9)
    assert not detector.state.alarms.active.any()


def test_a_sensor_that_dies_out_of_range_does_not_alarm_for_ever(mode: str) -> None:
    """The last wild readings of a sensor that then falls silent raise an alarm, and it ends without that sensor."""
    values = normal_values(400, 3)
    values[100:110, 2] = 500.0
    values[110:, 2] = np.nan
    events = load_detector(TINY_BUNDLE, mode).process(samples_of(values)).events
    assert [event.kind for event in events if event.kind != "update"] == ["start", "end"]
    assert events[0].sensors[0].name == "flow"


def _dying(sensor: int, faulty: bool) -> Samples:
    """Return 300 samples in which one sensor freezes from 100 to 220, with or without a fault of the next one."""
    values = faulty_values(300, 150, 200, (sensor + 1) % 3, seed=3) if faulty else normal_values(300, 3)
    values[100:220, sensor] = values[99, sensor]
    return samples_of(values)


def _that_knows_holds(mode: str) -> Detector:
    bundle = load_detector(TINY_BUNDLE, mode).bundle
    sensors = tuple(replace(one, longest_hold=2) for one in bundle.manifest.sensors)
    return open_detector(replace(bundle, manifest=replace(bundle.manifest, sensors=sensors)), mode)


@pytest.mark.parametrize("sensor", [0, 1, 2])
def test_a_dead_sensor_is_data_quality_and_no_alarm(mode: str, sensor: int) -> None:
    """A frozen sensor is reported as such, and from then on the machine is scored without it and without an alarm."""
    detector = _that_knows_holds(mode)
    outcomes = detector.process(_dying(sensor, faulty=False))
    name = detector.bundle.manifest.sensor_names[sensor]
    assert [(event.phase, [one.name for one in event.sensors]) for event in outcomes.quality] == [
        ("start", [name]),
        ("end", [name]),
    ]
    dead = slice(120, 220)
    assert np.isfinite(outcomes.score[dead]).all()
    assert not outcomes.alarm[dead].any()
    assert not outcomes.events


@pytest.mark.parametrize("sensor", [0, 1, 2])
def test_a_dead_sensor_hides_no_alarm(mode: str, sensor: int) -> None:
    """A fault of another sensor while one is dead is found and named, and the dead one is not blamed."""
    outcomes = _that_knows_holds(mode).process(_dying(sensor, faulty=True))
    starts = [event for event in outcomes.events if event.kind == "start"]
    assert [event.sensors[0].name for event in starts] == [SENSORS[(sensor + 1) % 3]]
    assert START + 150 <= starts[0].onset_time < START + 200
    shares = {one.name: one.share for one in starts[0].sensors}
    assert shares[SENSORS[sensor]] < 0.05


def test_measuring_masks_as_processing_does(mode: str) -> None:
    """Impossible readings of a dead sensor are as little in what is calibrated as in what is scored."""
    values = normal_values(200, 4)
    values[60:80, 0] = -9999.0
    outcomes = load_detector(TINY_BUNDLE, mode).process(samples_of(values))
    detector = load_detector(TINY_BUNDLE, mode)
    _, statistics = detector.measure(samples_of(values))
    np.testing.assert_allclose(_fused(detector, statistics[WINDOW:]), outcomes.statistic[WINDOW:], rtol=1e-9)
    assert not outcomes.events
    passed = load_detector(TINY_BUNDLE, mode).gated(samples_of(values))
    assert np.flatnonzero(np.isnan(passed.values).any(axis=1)).tolist() == list(range(60, 84))


def test_a_forecast_that_runs_away_is_held_back_for_a_dead_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """However a forecaster magnifies its own forecasts, what it is fed for a dead sensor stays in the range seen."""
    detector = load_detector(TINY_BUNDLE, "step")
    advance = detector.forecaster.advance

    def magnified(inputs: Float32, hidden: Float32) -> Float32:
        advance(inputs, hidden)
        return 1.2 * inputs[:, :, None, :3, None] + 0.01

    monkeypatch.setattr(detector.forecaster, "advance", magnified)
    values = normal_values(400, 3)
    values[100:, 1] = np.nan
    outcomes = detector.process(samples_of(values))
    sensor = detector.bundle.manifest.sensors[1]
    span = sensor.maximum - sensor.minimum
    late = outcomes.forecast[200:, 1]
    assert (np.abs(late - sensor.centre) < 2 * span).all()
    assert [event.sensors[0].name for event in outcomes.quality] == ["temperature"]
