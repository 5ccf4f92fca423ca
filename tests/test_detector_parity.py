"""The law of the hot path: however a stream is cut into calls, all that is said and remembered is the same."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.alarms import AlarmRules
from edge_agent.contract.bundle import Bundle, read_bundle
from edge_agent.contract.contradiction import ContradictionModel
from edge_agent.contract.drift import DriftModel
from edge_agent.contract.off_condition import OffCondition
from edge_agent.contract.trailing import POLICIES
from edge_agent.contract.types import Float32, Outcomes, Samples
from edge_agent.detector import Detector, open_detector
from edge_agent.tiles import MOST_SAMPLES, tiles_of
from tests.small_bundle import cycling_values, make_small_bundle
from tests.tiny_machine import SENSORS, START, TINY_BUNDLE, interleaved, normal_values, pick, samples_of

COUNT = 200
ASSETS = 3
STOP = OffCondition("flow", "<", 60.0, settle_ticks=3)
RULES = AlarmRules(update_samples=7, critical_after_samples=25, cool_down_samples=20, merge_samples=5)
LOOSE = DriftModel(30, 10, (0.0,) * 6, (0.05,) * 6)
LARGE = np.array([1.2, 7.5, 20.0], np.float32)
KINDS = ("shift", "noise", "lose", "freeze", "wild", "stop", "jitter")


def _spoil(values: Float32, kind: str, sensor: int, part: slice) -> None:
    """Do to one asset's values (n, 3) what machines and sensors do."""
    size = len(values[part])
    noise = np.random.default_rng(sensor).normal(size=size).astype(np.float32)
    if kind == "shift":
        values[part, sensor] += LARGE[sensor]
    elif kind == "noise":
        values[part, sensor] += LARGE[sensor] * noise
    elif kind == "lose":
        values[part, sensor] = np.nan
    elif kind == "freeze":
        values[part, sensor] = values[part.start, sensor]
    elif kind == "wild":
        values[part, sensor] = -9999.0
    elif kind == "stop":
        values[part] = np.array([1.0, 40.0, 0.0]) + 0.01 * noise[:, None]
    else:
        values[part][::2, sensor] = np.nan


@st.composite
def _streams(draw: st.DrawFn) -> Samples:
    """Draw samples of three assets, with faults of machines and sensors, gaps, and one that comes later."""
    parts = []
    for asset in range(ASSETS):
        values = normal_values(COUNT, draw(st.integers(0, 9)))
        for _ in range(draw(st.integers(0, 4))):
            first = draw(st.integers(10, COUNT - 2))
            part = slice(first, first + draw(st.integers(1, 60)))
            _spoil(values, draw(st.sampled_from(KINDS)), draw(st.integers(0, 2)), part)
        one = samples_of(values, asset, START + 17 * asset)
        one.tick[draw(st.integers(1, COUNT)) :] += draw(st.sampled_from([0, 1, 5, 500]))
        seen = np.isfinite(values).any(axis=1)
        parts.append(pick(one, np.flatnonzero(seen)))
    return interleaved(parts)


@st.composite
def _situations(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what a bundle may know, and what was before."""
    return {
        "adaptation": draw(st.sampled_from(POLICIES)),
        "off": draw(st.booleans()),
        "drift": draw(st.booleans()),
        "contradiction": draw(st.booleans()),
        "rules": draw(st.sampled_from([AlarmRules(), RULES])),
        "surplus": draw(st.sampled_from([0.0, -3.9, 6.0, 8.4])),
        "maintenance": draw(st.sampled_from([None, (30, 60), (100, 101)])),
    }


def _opened(bundle: Bundle, situation: dict[str, Any], mode: str) -> Detector:
    sensors = tuple(replace(one, longest_hold=3) for one in bundle.manifest.sensors)
    manifest = replace(
        bundle.manifest,
        sensors=sensors,
        adaptation=situation["adaptation"],
        off_condition=STOP if situation["off"] else None,
        drift=LOOSE if situation["drift"] else None,
        alarm_rules=situation["rules"],
    )
    scoring = bundle.scoring
    if situation["contradiction"]:
        usual = np.full(len(sensors), 2.5)
        scoring = replace(scoring, contradiction=ContradictionModel(usual, 0.9))
    detector = open_detector(replace(bundle, manifest=manifest, scoring=scoring), mode)
    detector.ensure_assets(ASSETS)
    detector.state.budget.surplus[:] = situation["surplus"]
    if situation["maintenance"] is not None:
        first, end = situation["maintenance"]
        detector.maintain(np.array([0]), np.array([START + first]), np.array([START + end]))
    return detector


def _fed(detector: Detector, samples: Samples, cuts: list[int]) -> list[Outcomes]:
    bounds = sorted({0, len(samples), *(cut for cut in cuts if cut < len(samples))})
    return [detector.process(pick(samples, slice(first, end))) for first, end in pairwise(bounds)]


def _assert_same(found: list[Outcomes], expected: list[Outcomes]) -> None:
    for name in ("score", "statistic", "forecast", "alarm", "onset", "factor", "drift", "off"):
        one, other = (
            [getattr(part, name) for part in parts if getattr(part, name) is not None]
            for parts in (found, expected)
        )
        assert bool(one) == bool(other)
        if one:
            np.testing.assert_allclose(
                np.concatenate(one), np.concatenate(other), rtol=1e-6, atol=1e-6, err_msg=name
            )
    for name in ("events", "quality", "advice"):
        assert _told(found, name) == _told(expected, name)


def _told(parts: list[Outcomes], name: str) -> list[tuple[Any, ...]]:
    """Return what identifies events, in each asset's order."""
    facts = (
        "asset", "time", "kind", "phase", "alarm_number", "severity", "onset_time", "peak_time", "end_reason",
        "reopened", "renewed",
    )  # fmt: skip
    events = [event for part in parts for event in getattr(part, name)]
    found = [tuple(getattr(event, fact, None) for fact in facts) for event in events]
    return sorted(found, key=lambda one: (one[0], one[1]))


def _assert_remembered(found: Detector, expected: Detector) -> None:
    for name, array in found.state.arrays().items():
        other = expected.state.arrays()[name]
        if array.dtype.kind == "f":
            single = array.dtype == np.float32 or name in ("reported.score", "reported.direction")
            tolerance = 1e-5 if single else 1e-6
            np.testing.assert_allclose(array, other, rtol=tolerance, atol=tolerance, err_msg=name)
        elif name != "cursor":
            np.testing.assert_array_equal(array, other, err_msg=name)


@pytest.mark.parametrize("mode", ["step", "window"])
@settings(max_examples=10, deadline=None)
@given(samples=_streams(), situation=_situations(), cuts=st.lists(st.integers(1, ASSETS * COUNT), max_size=6))
def test_a_stream_cut_anywhere_is_one_by_one(
    mode: str, samples: Samples, situation: dict[str, Any], cuts: list[int]
) -> None:
    """Whatever machines, sensors and operators do: scores, events and state do not depend on the calls."""
    bundle = read_bundle(TINY_BUNDLE)
    single, many = (_opened(bundle, situation, mode) for _ in range(2))
    expected = _fed(single, samples, list(range(len(samples))))
    _assert_same(_fed(many, samples, cuts), expected)
    _assert_remembered(many, single)
    assert many.held_back == single.held_back
    assert many.gate.found == single.gate.found


@settings(max_examples=10, deadline=None)
@given(samples=_streams(), situation=_situations())
def test_an_asset_after_the_other_is_all_in_turn(samples: Samples, situation: dict[str, Any]) -> None:
    """Samples sorted by asset, each asset's in one chunk, say of each what they say in the order of time."""
    bundle = read_bundle(TINY_BUNDLE)
    mixed, sorted_ = (_opened(bundle, situation, "step") for _ in range(2))
    order = np.argsort(samples.asset, kind="stable")
    expected = mixed.process(samples)
    found = sorted_.process(pick(samples, order))
    for name in ("score", "statistic", "alarm", "forecast"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name)[order], rtol=1e-6, atol=1e-6, err_msg=name
        )
    for name in ("events", "quality", "advice"):
        assert _told([found], name) == _told([expected], name)
    _assert_remembered(sorted_, mixed)


def test_windows_of_readings_are_judged_alike(tmp_path: Any) -> None:
    """Where shapes or contexts are judged, one call for all gives the statistics of one by one, cells missing too."""
    bundle = make_small_bundle(tmp_path / "bundle", cycling_values(4000), "trailing")
    values = cycling_values(300, 5)
    values[100:140, 0] = np.nan
    values[200:, 1] += np.float32(1.0)
    samples = Samples(np.zeros(300, np.int64), 1000 + np.arange(300), values)
    at_once, single = (open_detector(bundle).measure for _ in range(2))
    _, expected = at_once(samples)
    found = np.concatenate([single(pick(samples, slice(at, at + 1)))[1] for at in range(300)])
    assert np.isfinite(expected[:, -1]).sum() > 200
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=80))
def test_tiles_are_all_samples_in_each_assets_order(assets: list[int]) -> None:
    """Every sample is in one tile; no tile names an asset twice; an asset's samples come in their order."""
    asset = np.array(assets)
    places: dict[int, list[int]] = {}
    for tile in tiles_of(asset):
        assert (np.diff(tile.asset) > 0).all()
        assert tile.position.size <= MOST_SAMPLES
        for one, position in zip(tile.asset.tolist(), tile.position.tolist(), strict=True):
            places.setdefault(one, []).extend(position)
    assert {one: np.flatnonzero(asset == one).tolist() for one in set(assets)} == places


def test_a_large_fleet_is_cut_into_tiles() -> None:
    """Thousands of assets with several samples each come in tiles of bounded size, all of them once."""
    asset = np.tile(np.arange(3000), 3)
    tiles = list(tiles_of(asset))
    assert max(tile.position.size for tile in tiles) <= MOST_SAMPLES
    seen = np.concatenate([tile.position.reshape(-1) for tile in tiles])
    assert sorted(seen.tolist()) == list(range(9000))
    assert len(SENSORS) == 3
