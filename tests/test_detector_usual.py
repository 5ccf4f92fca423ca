"""Laws of what is usual of late in the detector: who learns when, and that it is the same however samples are fed."""

from dataclasses import fields, replace

import numpy as np
import pytest

from edge_agent.contract.bundle import Bundle, read_bundle
from edge_agent.contract.types import Float32, Outcomes, Samples
from edge_agent.detector import Detector, load_detector, open_detector
from edge_agent.detector_state import DetectorState
from tests.small_bundle import CENTRES, cycling_values, make_small_bundle

ROWS = 700
SHIFT = slice(250, 420)


@pytest.fixture(scope="module")
def trailing(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle of a flow whose shapes recur, that follows what is usual of late."""
    place = tmp_path_factory.mktemp("usual") / "bundle"
    return make_small_bundle(place, cycling_values(4000), "trailing")


def _opened(bundle: Bundle, policy: str) -> Detector:
    manifest = replace(bundle.manifest, adaptation=policy)
    return open_detector(replace(bundle, manifest=manifest))


def _faulty(rows: int = ROWS, seed: int = 5) -> Float32:
    return _broken(cycling_values(rows, seed), SHIFT)


def _broken(values: Float32, part: slice) -> Float32:
    """Return values with too high a pressure and a cycle of the flow twice as large in one part."""
    values[part, 1] += np.float32(3.0)
    values[part, 0] = 2.0 * values[part, 0] - np.float32(CENTRES[0])
    return values


def _samples(values: Float32, asset: int = 0, first: int = 0) -> Samples:
    return Samples(np.full(len(values), asset), 1_000_000 + first + np.arange(len(values)), values)


def _fleet() -> Samples:
    """Return three assets in turn: faulty, normal, and faulty with a gap."""
    parts = [_samples(_faulty()), _samples(cycling_values(ROWS, 6), 1), _samples(_faulty(seed=7), 2)]
    parts[2].tick[500:] += 200
    together = Samples.concatenate(parts, 2)
    order = np.argsort(together.tick, kind="stable")
    return Samples(together.asset[order], together.tick[order], together.values[order])


def _parts(samples: Samples, size: int) -> list[Samples]:
    cuts = [slice(at, at + size) for at in range(0, len(samples), size)]
    return [Samples(samples.asset[cut], samples.tick[cut], samples.values[cut]) for cut in cuts]


def _told(parts: list[Outcomes]) -> list[tuple[int, float, str, int, bool]]:
    events = [event for part in parts for event in part.events]
    return sorted((one.asset, one.time, one.kind, one.alarm_number, one.renewed) for one in events)


def test_the_bundle_keeps_shapes_and_policy(trailing: Bundle) -> None:
    """What was learnt of shapes and blocks, and the policy, are read back as they were."""
    found = read_bundle(trailing.directory)
    assert found.manifest.adaptation == "trailing"
    # Two sensors are few, so that the windows of both keep their means.
    assert found.scoring.shapes.sensors.tolist() == [0, 1]
    assert found.scoring.shapes.absolute.all()
    np.testing.assert_array_equal(found.scoring.shapes.references, trailing.scoring.shapes.references)
    np.testing.assert_array_equal(found.scoring.recent, trailing.scoring.recent)
    assert len(found.scoring.recent) > 10
    load_detector(trailing.directory)


@pytest.mark.parametrize("policy", ["frozen", "trailing", "automatic"])
@pytest.mark.parametrize("size", [1, 7, 500])
def test_batches_equal_one_by_one(trailing: Bundle, policy: str, size: int) -> None:
    """Under every policy, assets with alarms and a gap have the same scores and events however they are fed."""
    samples = _fleet()
    whole = _opened(trailing, policy).process(samples)
    detector = _opened(trailing, policy)
    parts = [detector.process(part) for part in _parts(samples, size)]
    assert {event.kind for event in whole.events} >= {"start", "end"}
    for name in ("score", "statistic", "alarm", "onset"):
        found = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(found, getattr(whole, name), rtol=1e-6, atol=1e-6)
    assert _told(parts) == _told([whole])


def test_a_restart_changes_nothing(trailing: Bundle) -> None:
    """A state written and read back in the middle of an alarm goes on as if nothing had happened."""
    samples = _samples(_faulty())
    first, second = _parts(samples, 350)
    whole, before, after = (_opened(trailing, "trailing") for _ in range(3))
    whole.process(first)
    before.process(first)
    after.state = DetectorState.from_bytes(before.state.to_bytes(), after.bundle)
    np.testing.assert_array_equal(after.process(second).score, whole.process(second).score)


def _blocks(detector: Detector) -> dict[str, object]:
    state = detector.state.trailing
    return {item.name: getattr(state, item.name)[0].copy() for item in fields(state)}


def test_frozen_learns_nothing(trailing: Bundle) -> None:
    """Under `frozen` what is usual stays that of the history."""
    detector = _opened(trailing, "frozen")
    detector.ensure_assets(1)
    before = _blocks(detector)
    detector.process(_samples(_faulty()))
    for name, array in _blocks(detector).items():
        np.testing.assert_array_equal(array, before[name])


def test_trailing_learns_nothing_in_an_alarm(trailing: Bundle) -> None:
    """Samples in an alarm leave no trace in what is usual; those outside of it are learnt."""
    detector = _opened(trailing, "trailing")
    values = _broken(cycling_values(2000, 5), slice(300, 1500))
    changed = False
    for part in _parts(_samples(values), 1):
        before = _blocks(detector) if len(detector.state.last_tick) else None
        outcomes = detector.process(part)
        if before is None:
            continue
        same = all(np.array_equal(array, before[name]) for name, array in _blocks(detector).items())  # type: ignore[arg-type]  # arrays
        changed |= not same
        assert same or not outcomes.alarm[0]
    assert changed


@pytest.mark.parametrize(("policy", "ends"), [("trailing", False), ("automatic", True)])
def test_a_lasting_alarm_ends_only_under_automatic(trailing: Bundle, policy: str, ends: bool) -> None:
    """A machine that stays strange becomes usual under `automatic`, and stays in alarm under `trailing`."""
    values = _broken(cycling_values(5000, 5), slice(300, None))
    outcomes = _opened(trailing, policy).process(_samples(values))
    assert outcomes.alarm[320:400].all()
    assert bool(outcomes.alarm[-500:].any()) != ends
    assert ("end" in [event.kind for event in outcomes.events]) == ends


def test_a_reset_forgets_what_was_usual(trailing: Bundle) -> None:
    """After an overhaul what is usual is again that of the history."""
    detector, fresh = (_opened(trailing, "automatic") for _ in range(2))
    detector.process(_samples(_broken(cycling_values(4000, 5), slice(None))))
    detector.reset(np.array([0]))
    later = _samples(cycling_values(300, 8), 0, 9000)
    np.testing.assert_allclose(detector.process(later).score, fresh.process(later).score, atol=1e-6)


def test_a_cycle_that_stalls_is_found_by_its_shape(trailing: Bundle) -> None:
    """A flow that pauses at a reading that it often has is news of its shape."""
    values = cycling_values(800, 5)
    stalled = np.r_[values[:408], np.repeat(values[407:408], 40, axis=0), values[408:]]
    stalled[:, 1] = cycling_values(len(stalled), 9)[:, 1]
    detector = _opened(trailing, "trailing")
    _, statistics = detector.measure(_samples(stalled.astype(np.float32)))
    shape = statistics[:, -1] / trailing.scoring.normalisers[-1]
    assert np.nanmax(shape[:400]) < 1.5
    assert np.nanmax(shape[408:450]) > 2.0
