"""Laws of states that stay on the device: whatever comes, all is as with arrays.

They are held on the CPU with IO binding, the same way through the code as on a GPU. `make test-gpu` holds them there.
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import device_state
from edge_agent.contract.bundle import CHUNK, Manifest, read_bundle
from edge_agent.contract.types import Float32, Outcomes, Samples
from edge_agent.detector import Detector, check_golden
from edge_agent.detector_state import DetectorState
from edge_agent.device_state import DeviceState
from edge_agent.forecaster import Forecaster, OnnxGraph, ResidentGraphs
from edge_agent.row_graphs import gather_graph, scatter_graph
from edge_agent.tiles import MOST_ASSETS_ON_DEVICE, tiles_of
from tests.tiny_machine import SENSORS, START, TINY_BUNDLE, normal_values

BUNDLE = read_bundle(TINY_BUNDLE)
STATE, INPUTS = BUNDLE.manifest.state_size, 2 * len(SENSORS)
ASSETS = 9
TOLERANCES = {"cpu": 1e-6, "cuda": 1e-5}
"""A GPU adds up in another order than a CPU."""
PROVIDERS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
on_each_provider = pytest.mark.parametrize("provider", PROVIDERS)


def _resident(provider: str, directory: Path = TINY_BUNDLE) -> Forecaster:
    return Forecaster(directory, "step", STATE, provider, resident=True)


def _graphs(forecaster: Forecaster) -> ResidentGraphs:
    assert forecaster.resident is not None
    return forecaster.resident


@pytest.fixture(scope="module", params=["with chunks", "steps only"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return graphs as released, and as of a bundle that lists no chunks."""
    if request.param == "with chunks":
        return TINY_BUNDLE
    without = tmp_path_factory.mktemp("graphs")
    shutil.copytree(TINY_BUNDLE, without, dirs_exist_ok=True)
    (without / CHUNK).unlink()
    return without


@st.composite
def _rounds(draw: st.DrawFn) -> list[tuple[str, list[int], int]]:
    """Draw what happens: assets of which readings come, with how many ticks, or which start over; or a growing."""
    some = st.sets(st.integers(0, ASSETS - 1), min_size=1).map(sorted)
    kinds = st.sampled_from(["read", "read", "read", "forget", "grow"])
    return draw(st.lists(st.tuples(kinds, some, st.sampled_from([1, 1, 2, 5])), min_size=1, max_size=15))


@on_each_provider
@settings(max_examples=40, deadline=None)
@given(rounds=_rounds(), seed=st.integers(0, 9))
def test_states_on_the_device_are_those_in_arrays(
    provider: str, directory: Path, rounds: list[tuple[str, list[int], int]], seed: int
) -> None:
    """Rounds of any assets and ticks, assets that start over, more assets: forecasts and states are the same."""
    rng, tolerance = np.random.default_rng(seed), TOLERANCES[provider]
    host, resident = Forecaster(directory, "step", STATE), _resident(provider, directory)
    expected = rng.normal(size=(ASSETS, STATE)).astype(np.float32)
    states = DeviceState(_graphs(resident), expected)
    for kind, some, ticks in rounds:
        asset = np.array(some)
        if kind == "read":
            inputs = rng.normal(size=(len(asset), ticks, INPUTS)).astype(np.float32)
            held = expected[asset]
            ahead = host.advance(inputs, held)
            expected[asset] = held
            rows = slice(some[0], some[-1] + 1) if len(some) == some[-1] - some[0] + 1 else asset
            np.testing.assert_allclose(states.advance(rows, inputs), ahead, rtol=tolerance, atol=tolerance)
        elif kind == "forget":
            expected[asset] = 0
            states.forget(asset)
        else:
            expected = np.concatenate([expected, np.zeros((len(asset), STATE), np.float32)])
            states = DeviceState(_graphs(resident), np.pad(states.to_host(), ((0, len(asset)), (0, 0))))
        np.testing.assert_allclose(states.to_host(), expected, rtol=tolerance, atol=tolerance)


@dataclass(frozen=True)
class _Turn:
    """What comes next: `ticks` samples of each of `assets` after `gap` ticks without any, or a reset of them."""

    assets: list[int]
    ticks: int
    gap: int
    resets: bool
    is_lossy: bool


_turns = st.lists(
    st.builds(
        _Turn,
        st.sets(st.integers(0, 5), min_size=1).map(sorted),
        st.sampled_from([1, 1, 1, 4, 12]),
        st.sampled_from([0, 0, 0, 3, 500]),
        st.sampled_from([False, False, False, True]),
        st.booleans(),
    ),
    min_size=5,
    max_size=20,
)


def _samples_of(turn: _Turn, first: int, seed: int) -> Samples:
    """Return the samples of a turn, all assets tick by tick."""
    ticks, count = np.arange(turn.ticks), len(turn.assets)
    values = normal_values(turn.ticks * count, seed)
    if turn.is_lossy:
        values[::3, seed % 3] = np.nan
    return Samples(np.tile(turn.assets, turn.ticks), START + first + np.repeat(ticks, count), values)


def _assert_alike(found: Outcomes, expected: Outcomes, tolerance: float) -> None:
    scale = BUNDLE.manifest.scaling.scale
    np.testing.assert_allclose(found.forecast / scale, expected.forecast / scale, rtol=0, atol=tolerance)
    # A statistic squares residuals and divides them by small ones.
    np.testing.assert_allclose(found.statistic, expected.statistic, rtol=100 * tolerance, atol=tolerance)


@on_each_provider
@settings(max_examples=25, deadline=None)
@given(turns=_turns)
def test_a_detector_forecasts_the_same_with_states_on_the_device(
    provider: str, directory: Path, turns: list[_Turn]
) -> None:
    """Any assets in any order, new ones among them, chunks, gaps that are primed, resets: nothing differs."""
    there = Detector(BUNDLE, _resident(provider, directory))
    here = Detector(BUNDLE, Forecaster(directory, "step", STATE))
    tick = 0
    for number, turn in enumerate(turns):
        known = [asset for asset in turn.assets if asset < len(here.state.last_tick)]
        if turn.resets and known:
            here.reset(np.array(known))
            there.reset(np.array(known))
        samples = _samples_of(turn, tick + turn.gap, number)
        _assert_alike(there.process(samples), here.process(samples), TOLERANCES[provider])
        assert there.state.device is not None
        tick += turn.gap + turn.ticks
    np.testing.assert_allclose(
        there.state.arrays()["hidden"], here.state.arrays()["hidden"], rtol=0, atol=TOLERANCES[provider]
    )


@on_each_provider
def test_golden_samples_are_reproduced_on_the_device(provider: str) -> None:
    """A bundle that was released before states could stay on a device runs there, and gives what it must."""
    check_golden(Detector(BUNDLE, _resident(provider)))


@on_each_provider
def test_a_state_on_the_device_is_kept_and_read_back(provider: str) -> None:
    """Kept as bytes and read back, with the device or without it, a detector goes on as the one that never ended."""
    values, ticks = normal_values(60), START + np.arange(60)
    first, later = (
        Samples(np.zeros(30, np.int64), ticks[at : at + 30], values[at : at + 30]) for at in (0, 30)
    )
    once = Detector(BUNDLE, _resident(provider))
    once.process(first)
    stored = once.state.to_bytes()
    expected = once.process(later)
    for resident in (True, False):
        again = Detector(BUNDLE, Forecaster(TINY_BUNDLE, "step", STATE, provider, resident=resident))
        again.state = DetectorState.from_bytes(stored, BUNDLE)
        _assert_alike(again.process(later), expected, TOLERANCES[provider])


@on_each_provider
@pytest.mark.parametrize("ticks", [1, 4])
def test_a_round_too_large_for_one_run_equals_its_parts(
    provider: str, ticks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a run may hold eight samples, ninety assets forecast and remember what they do in one run."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(90, ticks, INPUTS)).astype(np.float32)
    packed, graphs = rng.normal(size=(90, STATE)).astype(np.float32), _graphs(_resident(provider))
    whole, parted = (DeviceState(graphs, packed) for _ in range(2))
    expected = whole.advance(slice(0, 90), inputs)
    monkeypatch.setattr(device_state, "MOST_AT_ONCE", 8)
    found = parted.advance(slice(0, 90), inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCES[provider])
    np.testing.assert_allclose(parted.to_host(), whole.to_host(), rtol=0, atol=TOLERANCES[provider])


def test_rows_are_put_where_they_lie() -> None:
    """ONNX Runtime scatters into the very memory of the table; a copy of all others would cost more than a step."""
    table = np.zeros((5, 2), np.float32)
    graph = OnnxGraph(scatter_graph(2))
    states = graph.place(table)
    rows = np.array([[1, 2], [3, 4]], np.float32)
    graph.run_on_device({"states": states, "asset": np.array([[3], [0]]), "state": rows}, {"updated": states})
    assert table.tolist() == [[3, 4], [0, 0], [0, 0], [1, 2], [0, 0]]


def test_a_device_state_takes_no_array_for_its_own() -> None:
    """What it was made from stays as it was, and what it hands out is a copy."""
    packed = np.zeros((3, STATE), np.float32)
    states = DeviceState(_graphs(_resident("cpu")), packed)
    before = states.to_host()
    states.advance(slice(0, 3), np.ones((3, 1, INPUTS), np.float32))
    assert not packed.any()
    assert not before.any()
    assert states.to_host().any()


@pytest.mark.parametrize("make", [gather_graph, scatter_graph])
@pytest.mark.parametrize("width", [1, 464, 70_000])
def test_the_graphs_of_rows_are_onnx(make: Callable[[int], bytes], width: int) -> None:
    """What is written field by field passes ONNX's own checker, shapes and types too."""
    import onnx

    onnx.checker.check_model(onnx.load_from_string(make(width)), full_check=True)


def test_the_cpu_keeps_states_in_arrays() -> None:
    """On the CPU, where IO binding does not pay, and for windows, which have no state, nothing lies on a device."""
    assert Forecaster(TINY_BUNDLE, "step", STATE).resident is None
    assert Forecaster(TINY_BUNDLE, "window", STATE, resident=True).resident is None


def test_thousands_of_assets_are_one_tile_on_a_device() -> None:
    """Where a GPU forecasts, a round of 4096 assets is one tile and goes there at once."""
    (tile,) = tiles_of(np.arange(4096), MOST_ASSETS_ON_DEVICE)
    assert tile.position.shape == (4096, 1)


@pytest.mark.gpu
def test_a_gpu_is_what_runs_it() -> None:
    """Asked for CUDA, the session runs there and keeps the states of its own accord; golden samples are reproduced."""
    forecaster = Forecaster(TINY_BUNDLE, "step", STATE, "cuda")
    assert forecaster.provider == "cuda"
    detector = Detector(BUNDLE, forecaster)
    check_golden(detector)
    assert detector.state.device is not None


@pytest.mark.gpu
def test_samples_a_second_of_4096_assets(capsys: pytest.CaptureFixture[str]) -> None:
    """Print how many samples a second 4096 assets have on the GPU, with states there and with states in arrays.

    `FOREWARN_BUNDLE` names the bundle; without it the tests' own, which is far smaller than a real one.
    """
    bundle = read_bundle(Path(os.environ.get("FOREWARN_BUNDLE", TINY_BUNDLE)))
    manifest = bundle.manifest
    for resident in (True, False):
        forecaster = Forecaster(bundle.directory, "step", manifest.state_size, "cuda", resident=resident)
        alone, whole = (
            _forecasts_a_second(forecaster, manifest),
            _scores_a_second(Detector(bundle, forecaster)),
        )
        where = "on the GPU" if resident else "in arrays"
        with capsys.disabled():
            print(
                f"\n4096 assets, states {where}: {alone:,.0f} forecasts a second, {whole:,.0f} scores a second"
            )
        assert forecaster.provider == "cuda"


@pytest.mark.gpu
def test_forecasts_a_second_of_few_and_many_assets(capsys: pytest.CaptureFixture[str]) -> None:
    """Print from how many assets a round on the GPU is the faster one, beside one thread of the processor."""
    bundle = read_bundle(Path(os.environ.get("FOREWARN_BUNDLE", TINY_BUNDLE)))
    for assets in (1, 64, 256, 1024, 4096, 16_384):
        here, there = (
            _forecasts_a_second(
                Forecaster(bundle.directory, "step", bundle.manifest.state_size, provider),
                bundle.manifest,
                assets,
            )
            for provider in ("cpu", "cuda")
        )
        with capsys.disabled():
            print(
                f"\n{assets} assets a round: {here:,.0f} forecasts a second on the CPU, {there:,.0f} on CUDA"
            )
        assert min(here, there) > 0.0


def _forecasts_a_second(forecaster: Forecaster, manifest: Manifest, assets: int = 4096) -> float:
    inputs = np.random.default_rng(0).normal(size=(assets, 1, len(manifest.inputs))).astype(np.float32)
    state = np.zeros((assets, manifest.state_size), np.float32)
    if forecaster.resident is None:
        return _rate(lambda: forecaster.advance(inputs, state), assets)
    states = DeviceState(forecaster.resident, state)
    return _rate(lambda: states.advance(slice(0, assets), inputs), assets)


def _scores_a_second(detector: Detector) -> float:
    scaling, ticks = detector.bundle.manifest.scaling, iter(range(START, START + 10_000))
    noise = np.random.default_rng(0).normal(size=(4096, len(scaling.centre)))
    values: Float32 = (scaling.centre + scaling.scale * noise).astype(np.float32)

    def score() -> Outcomes:
        return detector.process(Samples(np.arange(4096), np.full(4096, next(ticks)), values))

    for _ in range(detector.bundle.manifest.warmup_ticks):
        score()
    return _rate(score)


def _rate(run: Callable[[], Any], assets: int = 4096) -> float:
    """Return samples a second, the median of 50 rounds of some assets after ten that do not count."""
    took = []
    for _ in range(60):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return assets / float(np.median(took[10:]))
