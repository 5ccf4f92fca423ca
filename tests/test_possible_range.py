"""Laws of the possible range: what electronics say is out, whatever a machine may do is in."""

import numpy as np
import pytest

from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.possible_range import configure_range, possible_range
from edge_agent.contract.types import Float32


def _ranges() -> tuple[Float32, Float32]:
    """Return the ranges of a bar, a mm/s, a °C that is below zero, and a sensor that never moved."""
    return possible_range(
        np.array([4.0, 0.1, -40.0, 7.0]),
        np.array([5.0, 2.2, -20.0, 7.0]),
        np.array([False, False, False, True]),
    )


@pytest.mark.parametrize(
    ("value", "possible"),
    [
        (0.0, [True, True, True, True]),
        (30.0, [True, True, True, True]),
        (-999.0, [False, False, True, True]),
        (-9999.0, [False, False, False, True]),
        (32767.0, [False, False, False, True]),
    ],
)
def test_a_machine_in_trouble_is_possible_and_a_word_of_the_electronics_is_not(
    value: float, possible: list[bool]
) -> None:
    """Zero and ten times the largest reading stay in, the usual words for `no reading` do not; a constant is free."""
    low, high = _ranges()
    assert ((low <= value) & (value <= high)).tolist() == possible


def test_a_configured_range_takes_the_place_of_the_default() -> None:
    """It holds for its sensor alone, and a sensor that the bundle does not have is named."""
    low, high = _ranges()
    names = ("bar", "vibration", "cold", "still")
    configure_range(low, high, names, {"still": (0.0, 1e300)})
    assert (low[3], np.isfinite(high[3])) == (0.0, True)
    with pytest.raises(ConfigurationError, match=r"quality\.ranges: flow: is no sensor"):
        configure_range(low, high, names, {"flow": (0.0, 1.0)})
