"""Laws of the binary payload: what is written is read, by the sensors' names, and nothing else is taken for one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.binary_payload import BinaryReader, write_binary

SENSORS = ("flow", "pressure", "speed")
CELLS = st.floats(width=32)


def _read(payload: bytes, reader: BinaryReader | None = None) -> list[list[float]]:
    return np.array((reader or BinaryReader(SENSORS)).read(payload), np.float64).reshape(-1, 4).tolist()


@settings(deadline=None)
@given(
    names=st.permutations(("flow", "pressure", "speed", "other", "ñ")).flatmap(
        lambda names: st.integers(1, 5).map(lambda count: names[:count])
    ),
    rows=st.lists(st.lists(CELLS, min_size=5, max_size=5), max_size=20),
)
def test_what_is_written_is_read_by_name(names: list[str], rows: list[list[float]]) -> None:
    """Any order of names and any number of samples gives each sensor its readings; unknown ones are counted."""
    payload = write_binary(names, [[float(at), *row[: len(names)]] for at, row in enumerate(rows)])
    reader = BinaryReader(SENSORS)
    found = _read(payload, reader)
    wanted = [
        [float(at), *(row[names.index(sensor)] if sensor in names else math.nan for sensor in SENSORS)]
        for at, row in enumerate(rows)
    ]
    np.testing.assert_array_equal(np.array(found).reshape(-1, 4), np.array(wanted).reshape(-1, 4))
    foreign = [index for index, name in enumerate(names) if name not in SENSORS]
    assert reader.unknown == sum(not math.isnan(row[index]) for row in rows for index in foreign)


@given(payload=st.binary(max_size=60), cut=st.integers(0, 60))
def test_no_other_bytes_are_taken_for_one(payload: bytes, cut: int) -> None:
    """Other bytes, and a payload that is cut or goes on, raise ValueError and nothing else."""
    whole = write_binary(SENSORS, [[1.0, 2.0, 3.0, 4.0]])
    for wrong in (payload, whole[: min(cut, len(whole) - 1)], whole + b"\0"):
        with pytest.raises(ValueError, match=r"short|kind|agree|twice|codec"):
            BinaryReader(SENSORS).read(wrong)


def test_a_name_that_stands_twice_is_refused() -> None:
    """It would not be clear which reading counts."""
    with pytest.raises(ValueError, match="twice"):
        _read(write_binary(("flow", "flow"), [[1.0, 2.0, 3.0]]))


def test_many_layouts_are_forgotten_again() -> None:
    """A publisher that makes up names does not fill the memory, and known names go on being read."""
    reader = BinaryReader(SENSORS)
    for number in range(2500):
        reader.read(write_binary((f"made up {number}",), []))
    assert len(reader._layouts) <= 1000
    assert _read(write_binary(SENSORS, [[1.0, 2.0, 3.0, 4.0]]), reader) == [[1.0, 2.0, 3.0, 4.0]]
