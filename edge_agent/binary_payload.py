"""A compact binary payload: samples with their sensors' names, for gateways that send much.

Little-endian. Sensors are matched by name; the names stand in every message, and what they mean is remembered by their
bytes.

| Offset | Type | Holds |
|---|---|---|
| 0 | 4 bytes | `F7 46 57 01`: no JSON begins so; the last is the version |
| 4 | uint16 | number of sensors S |
| 6 | uint16 | length of the names L, bytes |
| 8 | uint32 | number of samples n |
| 12 | L bytes | names, UTF-8, a line feed between two |
| 12 + L | n × (float64, S × float32) | seconds since the epoch, NaN for the arrival; readings, NaN for none |
"""

import math
import struct
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from edge_agent.contract.types import Float64

MAGIC = b"\xf7FW\x01"
_HEADER = struct.Struct("<4sHHI")
# From so many samples on, arrays are cheaper than tuples.
_FEW = 8
_MOST_LAYOUTS = 1000


class _Layout:
    """What the names of a message mean for the model.

    Args:
        names: of the message's columns.
        sensors: of the model.
        unused: names that are passed over.

    Raises:
        ValueError: a name stands twice.
    """

    def __init__(self, names: Sequence[str], sensors: Sequence[str], unused: Sequence[str] = ()) -> None:
        if len(set(names)) < len(names):
            raise ValueError("a name stands twice")
        place = {name: index for index, name in enumerate(names, start=1)}
        # One more than the columns there are stands for those that are not.
        self.chosen = [0, *(place.get(sensor, len(names) + 1) for sensor in sensors)]
        self.unknown = [index for name, index in place.items() if name not in sensors and name not in unused]
        self.sample = struct.Struct(f"<d{len(names)}f")
        self.record = np.dtype([("time", "<f8"), ("values", "<f4", (len(names),))])
        self.same = self.chosen == list(range(len(names) + 1))
        self.pick = itemgetter(*self.chosen)


class BinaryReader:
    """Reads binary payloads for a model's sensors.

    Args:
        sensors: the names of the model's sensors, in its order.
        unused: names that are passed over.
    """

    def __init__(self, sensors: Sequence[str], unused: Sequence[str] = ()) -> None:
        self._sensors, self._unused = tuple(sensors), tuple(unused)
        self._layouts: dict[bytes, _Layout] = {}
        self.unknown = 0
        """Readings of sensors that the model does not have."""

    def read(self, payload: bytes) -> list[tuple[float, ...]] | Float64:
        """Return rows of time and one cell a sensor of the model, as tuples where they are few, else as (n, 1 + F).

        Raises:
            ValueError: the payload is no binary payload, or not a whole one.
        """
        if len(payload) < _HEADER.size:
            raise ValueError("too short")
        magic, columns, length, count = _HEADER.unpack_from(payload)
        if magic != MAGIC:
            raise ValueError("not of this kind")
        start = _HEADER.size + length
        names = payload[_HEADER.size : start]
        layout = self._layouts.get(names) or self._learn(names)
        if layout.sample.size != 8 + 4 * columns or start + count * layout.sample.size != len(payload):
            raise ValueError("lengths do not agree")
        if count < _FEW:
            return self._tuples(layout, memoryview(payload)[start:])
        return self._matrix(layout, np.frombuffer(payload, layout.record, count, start))

    def _learn(self, names: bytes) -> _Layout:
        if len(self._layouts) >= _MOST_LAYOUTS:
            self._layouts.clear()
        layout = _Layout(names.decode().split("\n"), self._sensors, self._unused)
        self._layouts[names] = layout
        return layout

    def _tuples(self, layout: _Layout, samples: memoryview) -> list[tuple[float, ...]]:
        rows = list(layout.sample.iter_unpack(samples))
        if layout.unknown:
            self.unknown += sum(not math.isnan(row[index]) for row in rows for index in layout.unknown)
        return rows if layout.same else [layout.pick((*row, math.nan)) for row in rows]

    def _matrix(self, layout: _Layout, records: np.ndarray[Any, Any]) -> Float64:
        width = layout.record["values"].shape[0]
        whole = np.full((len(records), width + 2), np.nan)
        whole[:, 0], whole[:, 1:-1] = records["time"], records["values"]
        if layout.unknown:
            self.unknown += int(np.count_nonzero(~np.isnan(whole[:, layout.unknown])))
        return whole[:, :-1] if layout.same else whole[:, layout.chosen]


def column_names(payload: bytes) -> list[str]:
    """Return the names that a payload says its columns have; none where it is not whole."""
    if len(payload) < _HEADER.size:
        return []
    _, _, length, _ = _HEADER.unpack_from(payload)
    try:
        return payload[_HEADER.size : _HEADER.size + length].decode().split("\n")
    except UnicodeDecodeError:
        return []


def write_binary(sensors: Sequence[str], rows: Sequence[Sequence[float]]) -> bytes:
    """Return a payload of rows, each its time and one reading a sensor; NaN is none."""
    names = "\n".join(sensors).encode()
    sample = struct.Struct(f"<d{len(sensors)}f")
    header = _HEADER.pack(MAGIC, len(sensors), len(names), len(rows))
    return header + names + b"".join(sample.pack(*row) for row in rows)
