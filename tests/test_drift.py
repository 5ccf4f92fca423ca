"""Laws of drift: none in stationary operation; one that lasts is told of once; dead sensors and alarms do not count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.bundle import Bundle, read_bundle, read_golden, write_bundle
from edge_agent.contract.drift import DAY_SECONDS, DriftModel, DriftState, DriftWatch, fit_drift
from edge_agent.contract.errors import BundleError
from edge_agent.contract.scoring_model import ScoringModel
from edge_agent.contract.types import DriftEvent, Float32, Float64, Outcomes, Samples
from edge_agent.detector import load_detector
from edge_agent.detector_state import DetectorState
from edge_agent.events import BundleIdentity, EventWriter
from tests.small_bundle import make_small_bundle, normal_values
from trainer.calibrate import untouched_scoring

INTERVAL = 600.0
DAY = round(DAY_SECONDS / INTERVAL)
WIDTH = 3


def _scoring() -> ScoringModel:
    together = np.full((WIDTH, WIDTH), 0.8) + 0.2 * np.eye(WIDTH)
    return replace(untouched_scoring(WIDTH), level_correlation=together)


def _operation(days: int, seed: int) -> tuple[Float64, Float64]:
    """Return levels and residuals (n, F) of a machine with a daily cycle that all sensors share."""
    rng = np.random.default_rng(seed)
    rows = days * DAY
    cycle = (
        np.sin(2 * np.pi * np.arange(rows) / DAY)[:, None] * rng.uniform(0.5, 1.5, days).repeat(DAY)[:, None]
    )
    return cycle + 0.4 * rng.normal(size=(rows, WIDTH)), rng.normal(size=(rows, WIDTH))


def _model() -> DriftModel:
    level, residual = _operation(14, 0)
    rows = np.arange(len(level))
    found = fit_drift(_scoring(), level, residual, np.zeros(len(rows), np.int64), rows, INTERVAL)
    assert found is not None
    assert found.batch_ticks == DAY
    return found


def _follow(level: Float64, residual: Float64, known: bool = True) -> tuple[list[float], DriftState]:
    """Return the days on which to train anew is advised, and the state at the end."""
    watch, state, one = DriftWatch(_model(), _scoring()), DriftState.zero(1, WIDTH), np.array([0])
    advised = []
    for row in range(len(level)):
        present = np.full((1, 1, WIDTH), True)
        present[..., 0] = known
        at = slice(row, row + 1)
        tick = np.array([[row]])
        if len(watch.follow(state, one, tick, tick * INTERVAL, level[None, at], residual[None, at], present)):
            advised.append(row / DAY)
    return advised, state


def test_stationary_operation_is_never_far() -> None:
    """Ten weeks like those of the calibration stay below the limit."""
    advised, state = _follow(*_operation(70, 1))
    assert advised == []
    assert state.drift(np.array([0]))[0] < 0.7


@pytest.mark.parametrize("what", ["level", "forecast"])
def test_a_lasting_change_is_told_of_once_and_names_its_sensor(what: str) -> None:
    """One sensor that leaves the others, or is forecast worse, is advised of once, after days, and is the farthest."""
    level, residual = _operation(40, 2)
    if what == "level":
        level[:, 1] += 0.4
    else:
        residual[:, 1] *= 3.0
    advised, state = _follow(level, residual)
    assert len(advised) == 1
    assert 2.0 <= advised[0] <= 10.0
    assert int(np.abs(state.average[0]).argmax()) == (1 if what == "level" else WIDTH + 1)


def test_one_odd_day_is_no_drift() -> None:
    """A single day, however odd, advises nothing."""
    level, residual = _operation(20, 3)
    level[8 * DAY : 9 * DAY, 1] += 50.0
    assert _follow(level, residual)[0] == []


def test_a_dead_sensor_has_no_drift_and_gives_none() -> None:
    """With one sensor missing for weeks, the drift of it stands still and that of the others stays small."""
    level, residual = _operation(40, 4)
    advised, state = _follow(level, residual, known=False)
    assert advised == []
    assert state.average[0, 0] == state.average[0, WIDTH] == 0.0
    assert (np.abs(state.average[0, [1, 2]]) > 0.0).all()


def test_a_short_calibration_has_shorter_batches_or_none() -> None:
    """Six days have batches of an eighth of them, an hour of samples has no drift at all."""
    level, residual = _operation(14, 0)
    for rows, wanted in ((6 * DAY, True), (60, False)):
        found = fit_drift(
            _scoring(), level[:rows], residual[:rows], np.zeros(rows, np.int64), np.arange(rows), INTERVAL
        )  # fmt: skip
        assert (found is not None) == wanted
        if found is not None:
            assert found.batch_ticks < DAY
            assert all(scale > 0.0 for scale in found.scale)


# Through the detector.


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A small bundle that knows its drift."""
    made = make_small_bundle(tmp_path / "bundle")
    assert made.manifest.drift is not None
    return made


def _drifted(rows: int = 2800) -> Float32:
    values = normal_values(rows, 4)
    values[800:, 0] += 2.0
    return values


def _samples(values: Float32) -> Samples:
    return Samples(np.zeros(len(values), np.int64), 1_700_000_000 + np.arange(len(values)), values)


def test_the_detector_advises_and_the_event_says_what_moved(bundle: Bundle) -> None:
    """A level that moves to stay and raises no alarm gives one event, in chunks, one by one and after a restart."""
    samples = _samples(_drifted())
    whole = load_detector(bundle.directory).process(samples)
    assert len(whole.advice) == 1
    event = whole.advice[0]
    assert (event.sensors[0].name, event.sensors[0].direction) == ("flow", "above")
    assert event.drift >= 1.0
    assert whole.drift is not None
    assert (whole.drift[:800][np.isfinite(whole.drift[:800])] < 0.7).all()
    for sizes in (1, 100):
        detector = load_detector(bundle.directory)
        parts: list[Outcomes] = []
        for at in range(0, len(samples), sizes):
            cut = slice(at, at + sizes)
            parts.append(
                detector.process(Samples(samples.asset[cut], samples.tick[cut], samples.values[cut]))
            )
            if at == 1500:
                detector.state = DetectorState.from_bytes(detector.state.to_bytes(), bundle)
        found = [one for part in parts for one in part.advice]
        assert [(one.asset, one.time, one.since) for one in found] == [(event.asset, event.time, event.since)]
        np.testing.assert_allclose([one.drift for one in found], [event.drift], rtol=1e-6)


def test_time_in_alarm_does_not_count(bundle: Bundle) -> None:
    """While an alarm stands, the drift stands still."""
    values = normal_values(3000, 5)
    values[1500:, 0] += 40.0
    outcomes = load_detector(bundle.directory).process(_samples(values))
    held = np.flatnonzero(outcomes.alarm)
    assert len(held) > 1000
    assert outcomes.drift is not None
    assert len(set(outcomes.drift[held][np.isfinite(outcomes.drift[held])].tolist())) == 1


def test_the_event_of_a_drift_is_the_same_replayed() -> None:
    """The id is derived from what happened."""
    event = DriftEvent(0, 100.0, 50.0, 1.5, ())
    identity = BundleIdentity("pump", "1", "ab")
    live, again = (EventWriter(identity, replayed).write_advice(event, "p1") for replayed in (False, True))
    assert live["event_id"] == again["event_id"]
    assert (live["kind"], live["drift"], again["replayed"]) == ("retrain_advised", 1.5, True)


@pytest.mark.parametrize("change", [{"centre": (0.0,)}, {"scale": (0.0,) * 4}, {"batch_ticks": 0}])
def test_a_drift_that_does_not_fit_is_refused(bundle: Bundle, change: dict[str, object]) -> None:
    """Numbers for another count of sensors, scales of zero and batches of nothing break the contract."""
    assert bundle.manifest.drift is not None
    broken = replace(bundle.manifest.drift, **change)  # type: ignore[arg-type]  # of the wrong size on purpose
    with pytest.raises(BundleError, match=r"drift\."):
        write_bundle(replace(bundle, manifest=replace(bundle.manifest, drift=broken)), read_golden(bundle))


def test_a_bundle_without_drift_runs(bundle: Bundle) -> None:
    """A bundle whose history was too short has no drift, and nothing is advised."""
    write_bundle(replace(bundle, manifest=replace(bundle.manifest, drift=None)), read_golden(bundle))
    detector = load_detector(bundle.directory)
    assert read_bundle(bundle.directory).manifest.drift is None
    outcomes = detector.process(_samples(normal_values(500, 4)))
    assert outcomes.drift is None
    assert outcomes.advice == []
