"""Laws of the worst cases: where a verdict went wrong, by row and minute."""

from tests.tiny_benchmarks import labelled_case, said
from trainer.benchmark.cases import Window
from trainer.benchmark.mistakes import mistakes_of, record_of, worst_table


def test_mistakes_name_the_first_false_alarm_and_what_was_missed() -> None:
    """Alarms that begin at normal rows are false; of each labelled stretch the share in alarm is told."""
    case = labelled_case([0] * 120 + [1] * 10 + [0] * 20 + [1] * 10)
    alarm = [0] * 60 + [1] * 5 + [0] * 30 + [1] * 5 + [0] * 22 + [1] * 8 + [0] * 30
    found = mistakes_of(case, said(alarm))
    assert (found.false_alarms, found.first_false_alarm, found.first_false_minute) == (2, 60, 1.0)
    assert [(one.first, one.last, one.in_alarm) for one in found.faults] == [(120, 129, 0.8), (150, 159, 0.0)]
    (missed,) = record_of(found)["mistakes"]["faults"]
    assert (missed["first"], missed["minute"]) == (150, 2.5)


def test_windows_come_before_labels_and_rows_that_do_not_count_hold_no_false_alarm() -> None:
    """Where the protocol has windows these are the faults, with their kind, and silence has no false alarm."""
    case = labelled_case([0] * 10 + [1] * 10, windows=(Window(12, 15, "leak"),))
    found = mistakes_of(case, said([0] * 20))
    assert (found.false_alarms, found.first_false_alarm, found.first_false_minute) == (0, None, None)
    assert [(one.first, one.last, one.kind) for one in found.faults] == [(12, 15, "leak")]


def test_the_table_tells_where_to_look() -> None:
    """Each case has its line with the first false alarm and the faults that were seen less than half."""
    case = labelled_case([0] * 120 + [1] * 10)
    records = [
        {"name": "one", **record_of(mistakes_of(case, said([0] * 90 + [1] * 5 + [0] * 35)))},
        {"name": "two", **record_of(mistakes_of(case, said([0] * 120 + [1] * 10)))},
    ]
    header, rows = worst_table(records)
    assert header[0] == "worst cases"
    assert rows == [["one", "1", "90 (2)", "120-129 (2) 0%"], ["two", "0", "-", "-"]]
