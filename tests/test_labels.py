"""Laws of the labels' file: what is written is read, and what is wrong is named by file, line and field."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.labels import LABELS, LabelledInterval, read_labels, write_labels

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0;"), min_size=1, max_size=20).map(
    str.strip
)
HEADER = "asset,start,end,label\n"


@given(
    st.lists(
        st.builds(
            LabelledInterval,
            TEXT.filter(bool),
            st.integers(0, 4_000_000_000).map(float),
            st.just(4e9),
            st.sampled_from(LABELS),
            st.lists(TEXT.filter(bool), max_size=3).map(tuple),
            TEXT,
        ),
        max_size=5,
    )
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, intervals: list[LabelledInterval]
) -> None:
    """Any assets, sensors and notes come back, whatever signs they hold."""
    path = tmp_path_factory.getbasetemp() / "labels.csv"
    write_labels(path, intervals)
    assert read_labels(path) == tuple(intervals)


def test_times_may_be_numbers_and_columns_may_be_few(tmp_path: Path) -> None:
    """Epoch seconds and RFC 3339 are both times, one without a zone is UTC; sensors and note may be missing."""
    path = tmp_path / "labels.csv"
    path.write_text(HEADER + "p1,1700000000,2023-11-14T22:13:21,true_fault\n", encoding="utf-8")
    assert read_labels(path) == (LabelledInterval("p1", 1.7e9, 1.7e9 + 1, "true_fault"),)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "line 1: asset: the header must name this column"),
        ("asset,start,end\n", "line 1: label: the header must name this column"),
        (HEADER + ",1,2,true_fault\n", "line 2: asset: must be given"),
        (HEADER + "p,1,2,true_fault\np,1,2,fault\n", "line 3: label: is 'fault', known are"),
        (HEADER + "p,noon,2,true_fault\n", "line 2: start: is 'noon', must be a time"),
        (HEADER + "p,nan,2,true_fault\n", "line 2: start: is 'nan', must be in seconds"),
        (HEADER + "p,1700000000000,2,true_fault\n", "line 2: start: is '1700000000000', must be in seconds"),
        (HEADER + "p,1,,true_fault\n", "line 2: end: is '', must be a time"),
        (HEADER + "p,3,2,true_fault\n", "line 2: end: is before the start"),
        ("\xff", "file: must be UTF-8 text"),
    ],
)
def test_a_bad_file_is_one_line(content: str, rule: str, tmp_path: Path) -> None:
    """Whatever is wrong is one line with file, line, field and rule."""
    path = tmp_path / "labels.csv"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(HistoryError) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: {rule}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is one line."""
    with pytest.raises(HistoryError, match=r"none\.csv: file: No such file"):
        read_labels(tmp_path / "none.csv")
