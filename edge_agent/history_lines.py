"""InfluxDB line protocol, as `influxd inspect export-lp` and Telegraf write it, into readings (the door to its parser).

A field becomes a sensor of its own name; one that is called `value`, which says nothing, takes the measurement's. A tag
names the asset. Series that would become the same sensor of the same asset are refused rather than mixed.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Float64, Int64
from edge_agent.history_format import ASSET_NAMES, HistoryFormat

_EXPORT_WORDS = (b"CREATE DATABASE", b"CREATE RETENTION")
"""With these an export of a whole database tells how to restore it."""
_UNTOLD = "value"
_PROBED_LINES = 20


@dataclass(frozen=True, slots=True)
class LineBatch:
    """Readings of one block of lines.

    Attributes:
        time: (n,) as it stands in the file, NaN where a line has none.
        asset: (n,) place of the asset among those met so far, -1 where none is named.
        sensor: (n,) place of the sensor among those met so far.
        value: (n,).
        left_out: how many lines or cells are no readings, by kind.
    """

    time: Float64
    asset: Int64
    sensor: Int64
    value: Float64
    left_out: Counter[str]


def _parser() -> Any:
    try:
        import line_protocol_parser
    except ImportError as error:
        raise HistoryError(
            "line protocol: its parser is not installed; pip install 'forewarn[history]'"
        ) from error
    return line_protocol_parser


def holds_lines(block: bytes) -> bool:
    """Return whether text is line protocol and no table, by its first lines."""
    lines = (line for line in block.splitlines() if line.strip() and not _tells_nothing(line))
    first = list(islice(lines, _PROBED_LINES))
    # Every point has a field set, so what holds no equals sign needs no parser to be refused.
    candidates = [line for line in first if b"=" in line]
    parser = _parser() if candidates else None
    return sum(_is_point(line, parser) for line in candidates) * 2 > len(first)


def _is_point(line: bytes, parser: Any) -> bool:
    try:
        return parser.parse_line(line) is not None
    except parser.LineFormatError:
        return False


def _tells_nothing(line: bytes) -> bool:
    return line.lstrip().startswith(b"#") or line.startswith(_EXPORT_WORDS)


class LineReader:
    """Reads the lines of one file.

    Args:
        fmt: what the user said of the format.
        source: the file, for messages.
        assets, sensors: those met so far with their places; they grow.
        only_asset: name of the asset of lines without a tag that names one.
    """

    def __init__(
        self,
        fmt: HistoryFormat,
        source: str,
        assets: dict[str, int],
        sensors: dict[str, int],
        only_asset: str,
    ) -> None:
        if fmt.label_column is not None:
            raise HistoryError(
                f"{source}: label column {fmt.label_column}: line protocol has no labels; "
                f"leave the field out by --ignore-column"
            )
        self._fmt, self._source, self._only_asset = fmt, source, only_asset
        self._assets, self._sensors = assets, sensors
        self._ignored = frozenset(fmt.ignore_columns)
        self._places: dict[tuple[Any, ...], tuple[int, int]] = {}
        self._told: dict[tuple[int, int], tuple[str, tuple[tuple[str, str], ...]]] = {}

    def batches(self, blocks: Iterable[bytes]) -> Iterator[LineBatch]:
        """Yield the readings of each block of whole lines.

        Raises:
            HistoryError: two series would become the same sensor.
        """
        for block in blocks:
            yield self._batch(block)

    def _batch(self, block: bytes) -> LineBatch:
        parser = _parser()
        left_out: Counter[str] = Counter()
        rows: list[tuple[float, int, int, float]] = []
        for line in block.splitlines():
            if not line.strip() or _tells_nothing(line):
                continue
            try:
                point = parser.parse_line(line)
            except parser.LineFormatError:
                left_out["line not readable"] += 1
                continue
            rows += self._readings(point, left_out)
        table = np.array(rows, np.float64).reshape(-1, 4)
        places = table[:, 1:3].astype(np.int64)
        return LineBatch(table[:, 0], places[:, 0], places[:, 1], table[:, 3].copy(), left_out)

    def _readings(self, point: dict[str, Any], left_out: Counter[str]) -> list[tuple[float, int, int, float]]:
        time = math.nan if point["time"] is None else float(point["time"])
        measurement, tags = point["measurement"], point["tags"]
        head = (measurement, *tags.items())
        readings = []
        for field, value in point["fields"].items():
            if field in self._ignored:
                continue
            if isinstance(value, str):
                left_out["text in a number column"] += 1
                continue
            place = self._places.get((field, head))
            if place is None:
                place = self._places[field, head] = self._find(measurement, field, tags)
            readings.append((time, *place, float(value)))
        return readings

    def _find(self, measurement: str, field: str, tags: dict[str, str]) -> tuple[int, int]:
        """Return the places of asset and sensor of a series that was not met before."""
        if self._fmt.sensor_name == "measurement.field":
            name = f"{measurement}.{field}"
        else:
            name = measurement if field == _UNTOLD else field
        tag = self._fmt.asset_column or next((one for one in tags if one.lower() in ASSET_NAMES), None)
        asset = self._only_asset if tag is None else tags.get(tag)
        row = -1 if asset is None else self._assets.setdefault(asset, len(self._assets))
        place = row, self._sensors.setdefault(name, len(self._sensors))
        others = tuple(sorted((k, v) for k, v in tags.items() if k != tag and k not in self._ignored))
        before = self._told.setdefault(place, (measurement, others))
        if before[0] != measurement:
            raise HistoryError(
                f"{self._source}: {field} is a field of {before[0]} and of {measurement}; "
                f"give --sensor-name measurement.field"
            )
        if before[1] != others:
            told = sorted(set(before[1]) ^ set(others))[0][0]
            raise HistoryError(
                f"{self._source}: sensor {name} of one asset comes with more than one {told}; name the asset by "
                f"--asset-column {told}, or say --ignore-column {told}"
            )
        return place
