"""Readings as messages: one sample a message, many, a topic per sensor; and faults among them."""

import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.bench.load import Load
from edge_agent.contract.grid import Axis
from edge_agent.contract.types import Float32, Int64

PREFIX = "plant"
_BINARY = "edge_agent.binary_payload"
LAYOUTS = ("object", "sensor", *(("binary",) if importlib.util.find_spec(_BINARY) else ()))
"""JSON with all sensors, a topic per sensor, and the agent's binary payload where it has one."""


@dataclass(frozen=True)
class Fault:
    """From some row on the first sensor of each asset reads higher, and stays so.

    Attributes:
        first: row of the first asset's fault.
        spread: rows over which the assets' faults are spread.
        size: by how much, engineering units; 0 is no fault.
    """

    first: int = 0
    spread: int = 1
    size: float = 0.0

    def begin(self, asset: Int64) -> Int64:
        """Return the row in which the fault of each asset begins."""
        begun: Int64 = self.first + asset % self.spread
        return begun


NO_FAULT = Fault()


class FaultyLoad(Load):
    """A load with a fault in each asset."""

    def __init__(self, values: Float32, sensors: Sequence[str], axis: Axis, fault: Fault) -> None:
        super().__init__(values, sensors, axis)
        self._fault = fault

    def values(self, asset: Int64, row: Int64) -> Float32:
        """Return (k, F) readings of assets (k,) in their rows (k,)."""
        readings = super().values(asset, row).copy()
        readings[row >= self._fault.begin(asset), 0] += self._fault.size
        return readings

    def item(self, asset: int, row: int) -> str:
        """Return one row of an asset as a JSON object."""
        if row < self._fault.first + asset % self._fault.spread:
            return super().item(asset, row)
        cells = self.values(np.array([asset]), np.array([row]))[0].tolist()
        return json.dumps({"time": self.time(row), **dict(zip(self.sensors, cells, strict=True))})


def load_with(values: Float32, sensors: Sequence[str], axis: Axis, fault: Fault) -> Load:
    """Return a load, with faults where their size is not 0."""
    return FaultyLoad(values, sensors, axis, fault) if fault.size else Load(values, sensors, axis)


def messages(
    load: Load, layout: str, assets: range, first: int, rows: int, per_message: int
) -> Iterator[tuple[str, bytes]]:
    """Yield topic and payload of each message in the order of time; the assets take turns.

    Args:
        load: the readings.
        layout: one of `LAYOUTS`.
        assets: their numbers.
        first: the row to begin with.
        rows: of each asset.
        per_message: rows in one message; 1 sends an object, more an array.
    """
    for begin in range(first, first + rows, per_message):
        numbers = range(begin, min(begin + per_message, first + rows))
        for asset in assets:
            yield from _LAYOUTS[layout](load, asset, numbers)


def _objects(load: Load, asset: int, numbers: range) -> Iterator[tuple[str, bytes]]:
    items = [load.item(asset, row) for row in numbers]
    text = items[0] if len(items) == 1 else f"[{', '.join(items)}]"
    yield f"{PREFIX}/{asset}", text.encode()


def _sensors(load: Load, asset: int, numbers: range) -> Iterator[tuple[str, bytes]]:
    for row in numbers:
        cells = load.values(np.array([asset]), np.array([row]))[0].tolist()
        for name, cell in zip(load.sensors, cells, strict=True):
            payload = f'{{"time": {load.time(row)!r}, "value": {cell!r}}}'
            yield f"{PREFIX}/{asset}/{name}", payload.encode()


def _binary(load: Load, asset: int, numbers: range) -> Iterator[tuple[str, bytes]]:
    row = np.array(numbers)
    values = load.values(np.full(len(row), asset), row)
    rows = [(load.time(number), *cells) for number, cells in zip(numbers, values.tolist(), strict=True)]
    payload: bytes = importlib.import_module(_BINARY).write_binary(load.sensors, rows)
    yield f"{PREFIX}/{asset}", payload


_LAYOUTS: dict[str, Callable[[Load, int, range], Iterator[tuple[str, bytes]]]] = {
    "object": _objects,
    "sensor": _sensors,
    "binary": _binary,
}
