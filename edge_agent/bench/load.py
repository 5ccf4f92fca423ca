"""Readings of normal life for many assets, without an end, and their payloads."""

import json
from collections.abc import Sequence

import numpy as np

from edge_agent.contract.bundle import Bundle, read_golden
from edge_agent.contract.errors import BundleError
from edge_agent.contract.grid import Axis
from edge_agent.contract.types import Float32, Int64, Rows, Samples

START_SECONDS = 1_700_000_000
"""About when the first row is stamped, seconds since the epoch."""
# Places between two assets in the stretch, so that no two send the same at the same time.
_APART = 37
_DECIMALS = 6


class Load:
    """One stretch of readings played forth and back, which has no leap at its ends; each asset begins elsewhere in it.

    Args:
        values: (n, F) readings of a machine in order, engineering units, none missing.
        sensors: their names.
        axis: of the model; every row is one tick.
    """

    def __init__(self, values: Float32, sensors: Sequence[str], axis: Axis) -> None:
        self.sensors = tuple(sensors)
        self._values = np.concatenate([values, values[-2:0:-1]])
        self._axis = axis
        self._first_tick = int(axis.tick_of(np.array([float(START_SECONDS)]))[0])
        self._texts: dict[int, str] = {}
        self._times: dict[int, float] = {}

    def values(self, asset: Int64, row: Int64) -> Float32:
        """Return (k, F) readings of assets (k,) in their rows (k,)."""
        readings: Float32 = self._values[self._place(asset, row)]
        return readings

    def samples(self, asset: Int64, row: Int64) -> Samples:
        """Return row `row` (k,) of each asset (k,) as samples."""
        return Samples(asset, self._first_tick + row, self.values(asset, row))

    def rows(self, asset: Int64, row: Int64) -> Rows:
        """Return the same as rows of readings."""
        return Rows(asset, self._axis.time_of(self._first_tick + row), self.values(asset, row))

    def time(self, row: int) -> float:
        """Return the time stamp of a row, seconds since the epoch."""
        found = self._times.get(row)
        if found is None:
            found = float(self._axis.time_of(np.array([self._first_tick + row]))[0])
            self._times[row] = found
        return found

    def item(self, asset: int, row: int) -> str:
        """Return one row of an asset as a JSON object: its time, and every sensor by name."""
        place = (asset * _APART + row) % len(self._values)
        text = self._texts.get(place)
        if text is None:
            cells = zip(self.sensors, self._values[place].tolist(), strict=True)
            # The object without its opening brace, behind the time.
            text = json.dumps({name: round(cell, _DECIMALS) for name, cell in cells})[1:]
            self._texts[place] = text
        return f'{{"time": {self.time(row)!r}, {text}'

    def _place(self, asset: Int64, row: Int64) -> Int64:
        place: Int64 = (asset * _APART + row) % len(self._values)
        return place


def load_of(bundle: Bundle) -> Load:
    """Return a load made of the bundle's own golden samples, readings of the machine that it was trained on.

    Raises:
        BundleError: they have fewer than three rows with every sensor.
    """
    values = np.asarray(read_golden(bundle)["values"], np.float32)
    whole = values[np.isfinite(values).all(axis=1)]
    if len(whole) < 3:
        raise BundleError(f"{bundle.directory}: golden.npz: values: must hold three rows with every sensor")
    return Load(whole, bundle.manifest.sensor_names, bundle.manifest.axis)
