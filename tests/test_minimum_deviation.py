"""Laws of the least deviation that opens an alarm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.minimum_deviation import DeviationRule, MinimumDeviation, broken_deviation

NAMES = ("flow", "pressure", "speed")


def _enough(
    rules: dict[str, DeviationRule], share: list[float], actual: list[float], expected: list[float]
) -> bool:
    found = MinimumDeviation(NAMES, rules).enough(
        np.array([share]), np.array([actual], np.float32), np.array([expected], np.float32)
    )
    return bool(found[0])


@pytest.mark.parametrize(
    ("rule", "actual", "enough"),
    [
        (DeviationRule(min_absolute=5.0), 105.0, True),
        (DeviationRule(min_absolute=5.0), 104.0, False),
        (DeviationRule(min_absolute=5.0), 95.0, True),
        (DeviationRule(min_relative=0.1), 110.5, True),
        (DeviationRule(min_relative=0.1), 109.0, False),
        (DeviationRule(min_absolute=5.0, min_relative=0.1), 107.0, False),
        (DeviationRule(min_absolute=5.0, direction="above"), 94.0, False),
        (DeviationRule(min_absolute=5.0, direction="above"), 106.0, True),
        (DeviationRule(direction="below"), 99.0, True),
        (DeviationRule(direction="below"), 101.0, False),
        (DeviationRule(), np.nan, False),
    ],
)
def test_both_limits_and_the_side_must_hold(rule: DeviationRule, actual: float, enough: bool) -> None:
    """A sensor deviates enough if it does by the absolute limit, by the relative one, and on the side named."""
    assert _enough({"flow": rule}, [1.0, 0.0, 0.0], [actual, 1.0, 1.0], [100.0, 1.0, 1.0]) is enough


def test_only_sensors_with_a_real_share_count() -> None:
    """What rides along with a small share neither opens an alarm nor keeps one from opening."""
    strict = {"flow": DeviationRule(min_absolute=50.0)}
    assert not _enough(strict, [0.95, 0.05, 0.0], [101.0, 9.0, 9.0], [100.0, 1.0, 1.0])
    assert _enough(strict, [0.8, 0.2, 0.0], [101.0, 9.0, 9.0], [100.0, 1.0, 1.0])
    # Of many sensors with small shares, the largest counts.
    assert _enough(strict, [0.04, 0.05, 0.02], [101.0, 9.0, 9.0], [100.0, 1.0, 1.0])


@given(
    share=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3),
    actual=st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3),
    limits=st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 100.0)),
)
def test_a_stricter_limit_never_opens_more(
    share: list[float], actual: list[float], limits: tuple[float, float]
) -> None:
    """Whatever passes a limit passes a smaller one."""
    low, high = sorted(limits)
    expected = [1.0, 10.0, 100.0]
    strict = _enough({name: DeviationRule(high) for name in NAMES}, share, actual, expected)
    loose = _enough({name: DeviationRule(low) for name in NAMES}, share, actual, expected)
    assert loose or not strict


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (DeviationRule(min_absolute=-1.0), "min_absolute: must be at least 0"),
        (DeviationRule(min_relative=float("nan")), "min_relative: must be at least 0"),
        (DeviationRule(direction="up"), "direction: is 'up', known are both, above, below"),
        (DeviationRule(), None),
    ],
)
def test_broken_rules_are_named(rule: DeviationRule, said: str | None) -> None:
    """A rule that makes no sense is refused by the name of its field."""
    assert broken_deviation(rule) == said
