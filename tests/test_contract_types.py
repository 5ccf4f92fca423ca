"""Laws of the values that travel."""

import numpy as np

from edge_agent.contract.errors import BundleError, ForewarnError, HistoryError, UsageError
from edge_agent.contract.types import Samples


def test_concatenating_keeps_order_and_nothing_is_a_neutral_element() -> None:
    """Joining samples keeps their order, and joining none gives none of the right width."""
    one = Samples(np.array([0]), np.array([5]), np.zeros((1, 2), np.float32))
    two = Samples(np.array([1]), np.array([6]), np.ones((1, 2), np.float32))
    joined = Samples.concatenate([one, Samples.empty(2), two], 2)
    assert joined.tick.tolist() == [5, 6]
    assert Samples.concatenate([], 3).values.shape == (0, 3)


def test_exit_codes_follow_the_command_line_contract() -> None:
    """Failures exit with 1, wrong usage with 2, unusable configuration and bundles with 78."""
    codes = [error("x").exit_code for error in (ForewarnError, HistoryError, UsageError, BundleError)]
    assert codes == [1, 1, 2, 78]
