"""The door to the payloads: JSON bytes in, readings out, every unusable part counted by reason.

Ordinary payloads are read by their types, which costs a seventh; whatever a typed reader refuses goes through
`JsonDecoder`, which says what every payload means. A bad cell costs that cell, a bad time costs that row, and only
bytes that are no JSON at all cost the message. JSON's missing literals (`NaN`, `Infinity`) are understood, because
common publishers write them; `null` says that there is no reading and is not counted as bad.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

REASONS = ("not_json", "bad_time", "not_a_number", "unknown_sensor", "nan", "infinite", "too_large")

FLOAT32_MAX = 3.4028234663852886e38
REFUSED = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)
"""What a typed reader raises where the payload is another one."""
# Stands for a number beyond a double; as an int it takes the same way as one that was written out in digits.
_BEYOND = 10**400
_LONGEST_INTEGER = 400
# From these sizes on an epoch number must be milli-, micro- or nanoseconds: in seconds it would be after the year 5000.
UNIT_STEPS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
_DIVISORS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
LATEST = 1e11


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """How the payloads of one input are written.

    Attributes:
        time_key: key of the time stamp in an object.
        value_key: key of the number in an object on a topic that names the sensor.
        values_key: key of the object that holds the sensors, if they are nested.
        time_unit: `auto`, `s`, `ms`, `us` or `ns`, of a time stamp that is a number.
    """

    time_key: str = "time"
    value_key: str = "value"
    values_key: str = "values"
    time_unit: str = "auto"


@dataclass(frozen=True, slots=True)
class DecodedRow:
    """Readings of one time: `time` in seconds since the epoch, `values` by the sensor's position in the model."""

    time: float
    values: dict[int, float]


@dataclass(slots=True)
class Decoded:
    """What one message held: rows in the order of the message, and the unusable parts by reason."""

    rows: list[DecodedRow] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def _parse_integer(text: str) -> int:
    return int(text) if len(text) < _LONGEST_INTEGER else _BEYOND


def _parse_float(text: str) -> float | int:
    number = float(text)
    return number if math.isfinite(number) else _BEYOND


def _load(payload: bytes) -> Any:
    """Return the JSON value; the strict, fast reader first, the lenient one for what it refuses.

    Raises:
        ValueError: the bytes are no JSON, not even with NaN and Infinity.
    """
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    try:
        return json.loads(payload, parse_int=_parse_integer, parse_float=_parse_float)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_time(stamp: object, unit: str = "auto") -> float:
    """Return seconds since the epoch of an epoch number or an RFC 3339 text; a text without a zone is UTC.

    Raises:
        ValueError: the stamp is neither, or is before 1970, or is absurdly late.
    """
    if isinstance(stamp, str):
        moment = datetime.fromisoformat(stamp.strip())
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    elif isinstance(stamp, (int, float)) and not isinstance(stamp, bool):
        try:
            number = float(stamp)
        except OverflowError as error:
            raise ValueError("time stamp too large") from error
        seconds = number / (_DIVISORS.get(unit) or _recognised_divisor(number))
    else:
        raise ValueError("time stamp is neither a number nor a text")
    if not 0.0 <= seconds < LATEST:
        raise ValueError("time stamp out of range")
    return seconds


def _recognised_divisor(number: float) -> float:
    return next((divisor for least, divisor in UNIT_STEPS if number >= least), 1.0)


def _cell(value: object) -> tuple[float, str | None]:
    """Return the number and no reason, or NaN and the reason why it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan, "not_a_number"
    try:
        number = float(value)
    except OverflowError:
        return math.nan, "too_large"
    if math.isnan(number):
        return math.nan, "nan"
    if math.isinf(number):
        return math.nan, "infinite"
    if abs(number) > FLOAT32_MAX:
        return math.nan, "too_large"
    return number, None


class JsonDecoder:
    """Decodes the messages of one input for a model's sensors.

    Args:
        sensors: the names of the model's sensors, in its order; or the position of each name, which may be one that
            finds a position for every name.
        fmt: the keys and the unit of time.
        unused: names that are passed over.
    """

    def __init__(
        self,
        sensors: Sequence[str] | Mapping[str, int],
        fmt: PayloadFormat | None = None,
        unused: Sequence[str] = (),
    ) -> None:
        if not isinstance(sensors, Mapping):
            sensors = {name: index for index, name in enumerate(sensors)}
        self._position = sensors
        self._format = fmt or PayloadFormat()
        self._unused = frozenset(unused)

    def decode(self, payload: bytes, arrival: float, sensor: str | None = None) -> Decoded:
        """Decode one message; never raises.

        Args:
            payload: the bytes as they arrived.
            arrival: seconds since the epoch; the time of what carries no time of its own.
            sensor: the sensor that the topic names, if it does.
        """
        decoded = Decoded()
        try:
            content = _load(payload)
        except ValueError:
            decoded.rejected["not_json"] += 1
            return decoded
        for item in content if isinstance(content, list) else (content,):
            self._row(item, arrival, sensor, decoded)
        return decoded

    def _row(self, item: object, arrival: float, sensor: str | None, decoded: Decoded) -> None:
        time = self._time(item, arrival)
        if time is None:
            decoded.rejected["bad_time"] += 1
            return
        cells = self._cells(item, sensor)
        if cells is None:
            decoded.rejected["not_a_number"] += 1
            return
        values: dict[int, float] = {}
        for name, value in cells.items():
            self._keep(name, value, values, decoded.rejected)
        if values:
            decoded.rows.append(DecodedRow(time, values))

    def _time(self, item: object, arrival: float) -> float | None:
        stamp = item.get(self._format.time_key) if isinstance(item, dict) else None
        if stamp is None:
            return arrival
        try:
            return parse_time(stamp, self._format.time_unit)
        except (ValueError, OverflowError):
            return None

    def _cells(self, item: object, sensor: str | None) -> dict[str, object] | None:
        """Return the cells by sensor name, or None where the item can hold no reading at all."""
        fmt = self._format
        if sensor is not None:
            if not isinstance(item, dict):
                return {sensor: item}
            return {sensor: item[fmt.value_key]} if fmt.value_key in item else None
        if not isinstance(item, dict):
            return None
        nested = item.get(fmt.values_key)
        if isinstance(nested, dict):
            return nested
        return {name: value for name, value in item.items() if name != fmt.time_key}

    def _keep(self, name: str, value: object, values: dict[int, float], rejected: Counter[str]) -> None:
        position = self._position.get(name)
        if position is None:
            if name not in self._unused:
                rejected["unknown_sensor"] += 1
            return
        if value is None:
            return
        number, reason = _cell(value)
        if reason is not None:
            rejected[reason] += 1
        else:
            values[position] = number


Row = tuple[float, ...]
"""One row: its time, NaN where the payload says none, and a cell for each sensor of the model; NaN or None is empty."""
Reader = Callable[[bytes], Any]
"""Payload in; a typed object out that `astuple` makes a `Row` of, or a `Row`, or a list of one of these.

Times come as they stand in the payload with the unit `auto`, otherwise in seconds. Raises `REFUSED`.
"""
astuple = msgspec.structs.astuple


def row_readers(sensors: Sequence[str], fmt: PayloadFormat, unused: Sequence[str] = ()) -> tuple[Reader, ...]:
    """Return readers of messages that hold all sensors of an asset: flat or nested, time as number or text.

    Args:
        sensors: of the model.
        fmt: how the payloads are written.
        unused: keys that are passed over.
    """
    every = (*sensors, *unused)
    special = {fmt.time_key, fmt.values_key} & set(every) or fmt.time_key == fmt.values_key
    if special:
        # A sensor by the name of a key of the format: too subtle for types.
        return ()
    fields: list[tuple[Any, ...]] = [
        (f"sensor_{index}", float | None if index < len(sensors) else msgspec.Raw, math.nan)
        for index in range(len(every))
    ]
    names = {f"sensor_{index}": name for index, name in enumerate(every)}
    flat_row = _first(1 + len(sensors)) if unused else astuple
    nested_row = _unnested(len(sensors) if unused else None)
    cells = _struct("Cells", fields, names)
    readers: list[Reader] = []
    for stamp in (float, str):
        time = ("time", stamp, *((math.nan,) if stamp is float else ()))
        keys = {"time": fmt.time_key, "values": fmt.values_key}
        flat = _struct("Flat", [time, *fields], names | keys)
        nested = _struct("Nested", [("values", cells), time], keys)
        reader = msgspec.json.Decoder(flat | list[flat]).decode  # type: ignore[valid-type]  # made here
        readers += [
            reader
            if stamp is float and fmt.time_unit == "auto" and not unused
            else _timed(reader, fmt.time_unit, flat_row),
            _timed(msgspec.json.Decoder(nested | list[nested]).decode, fmt.time_unit, nested_row),  # type: ignore[valid-type]
        ]
    return tuple(readers)


def cell_readers(fmt: PayloadFormat) -> tuple[Reader, ...]:
    """Return readers of messages on topics that name the sensor; their rows are (time, value), or the number alone."""
    if fmt.time_key == fmt.value_key:
        return ()
    keys = {"time": fmt.time_key, "value": fmt.value_key}
    number = _struct("Reading", [("time", float, math.nan), ("value", float)], keys)
    text = _struct("StampedReading", [("time", str), ("value", float)], keys)
    numbers = msgspec.json.Decoder(float | number | list[float | number]).decode  # type: ignore[valid-type]
    texts = msgspec.json.Decoder(text | list[text]).decode  # type: ignore[valid-type]
    if fmt.time_unit != "auto":
        numbers = msgspec.json.Decoder(number | list[number]).decode  # type: ignore[valid-type]
        return (
            msgspec.json.Decoder(float | list[float]).decode,
            _timed(numbers, fmt.time_unit, astuple),
            _timed(texts, fmt.time_unit, astuple),
        )
    return numbers, _timed(texts, fmt.time_unit, astuple)


def _struct(name: str, fields: Sequence[tuple[Any, ...]], keys: dict[str, str]) -> type[msgspec.Struct]:
    """Return a type that is as strict as the lenient way is exact: an unknown key is refused, since it is counted."""
    used = {field[0]: keys[field[0]] for field in fields}
    return msgspec.defstruct(name, fields, rename=used, forbid_unknown_fields=True, gc=False, kw_only=True)


def _timed(reader: Reader, unit: str, row_of: Callable[[Any], Row]) -> Reader:
    """Return a reader whose rows carry their time in seconds."""

    def row(item: Any) -> Row:
        # NaN, which no JSON holds, is the absent time.
        if item.time == item.time:
            item.time = parse_time(item.time, unit)
        return row_of(item)

    def read(payload: bytes) -> Row | list[Row]:
        content = reader(payload)
        return [row(item) for item in content] if type(content) is list else row(content)

    return read


def _first(count: int) -> Callable[[Any], Row]:
    """Return what makes a row of the first fields of an object."""
    return lambda item: astuple(item)[:count]


def _unnested(count: int | None) -> Callable[[Any], Row]:
    """Return what makes a row of the time of an object and of the first of its cells; None is all."""
    return lambda item: (item.time, *astuple(item.values)[:count])
