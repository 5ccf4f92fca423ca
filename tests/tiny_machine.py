"""The made-up pump behind `tests/tiny_bundle`: its sensors, its normal life, and rows and samples of it."""

from pathlib import Path

import numpy as np

from edge_agent.contract.types import Float32, Rows, Samples

TINY_BUNDLE = Path(__file__).parent / "tiny_bundle"
SENSORS = ("pressure", "temperature", "flow")
UNITS = ("bar", "°C", "m³/h")
INTERVAL = 1.0
PHASE = 0.0
WINDOW = 8
START = 1_700_000_000
"""Seconds since the epoch, and the tick, of the first sample."""

_CENTRE = np.array([5.0, 60.0, 120.0])
_SCALE = np.array([0.2, 1.5, 4.0])
_TOGETHER = np.array([[1.0, 0.3, 0.6], [0.2, 1.0, -0.3], [0.7, -0.2, 1.0]])


def normal_values(count: int, seed: int = 0) -> Float32:
    """Return (count, 3) readings of normal life in engineering units: three slow sources, mixed, and noise."""
    rng = np.random.default_rng(seed)
    sources = np.empty((count, 3))
    state = rng.normal(size=3)
    for row in range(count):
        state = 0.9 * state + np.sqrt(1.0 - 0.9**2) * rng.normal(size=3)
        sources[row] = state
    mixed = sources @ _TOGETHER + 0.1 * rng.normal(size=(count, 3))
    return np.asarray(_CENTRE + _SCALE * mixed, np.float32)


def normal_samples(count: int, seed: int = 0, asset: int = 0) -> Samples:
    """Return the same as samples of one asset, tick by tick."""
    return samples_of(normal_values(count, seed), asset)


def samples_of(values: Float32, asset: int = 0, first: int = START) -> Samples:
    """Return values (n, 3) as consecutive samples of one asset."""
    return Samples(np.full(len(values), asset), first + np.arange(len(values)), values)


def rows_of(values: Float32, asset: int = 0) -> Rows:
    """Return values (n, 3) as rows of one asset, one a tick."""
    return Rows(np.full(len(values), asset), START + np.arange(len(values), dtype=np.float64), values)


def faulty_values(count: int, begin: int, end: int, sensor: int = 0, seed: int = 0) -> Float32:
    """Return normal life in which one sensor reads six of its deviations too high from row begin to end."""
    values = normal_values(count, seed)
    values[begin:end, sensor] += np.float32(6.0 * _SCALE[sensor])
    return values


def interleaved(parts: list[Samples]) -> Samples:
    """Return the samples of several assets in order of their ticks."""
    together = Samples.concatenate(parts, len(SENSORS))
    order = np.lexsort((together.asset, together.tick))
    return pick(together, order)


def pick(samples: Samples, rows: "np.ndarray[tuple[int, ...], np.dtype[np.int64]] | slice") -> Samples:
    """Return some of the samples."""
    return Samples(samples.asset[rows], samples.tick[rows], samples.values[rows])
