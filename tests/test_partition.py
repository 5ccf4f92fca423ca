"""Laws of which worker has which asset: the same in every process, whatever the seed of Python's own hash."""

import subprocess
import sys

import numpy as np
import pytest

from edge_agent.partition import owner

NAMES = ["pump-1", "pump-2", "pump-3", "Pumpe/Süd", "", "a" * 500, "\ud800"]


def test_the_worker_of_an_asset_is_known_for_good() -> None:
    """Files and streams of the life before depend on it, so these numbers never change."""
    assert [owner(name, 7) for name in NAMES] == [2, 2, 2, 2, 0, 2, 3]
    assert [owner(name, 1) for name in NAMES] == [0] * len(NAMES)


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_every_process_finds_the_same(seed: str) -> None:
    """The seed of Python's own hash does not matter."""
    program = "from edge_agent.partition import owner; print([owner(f'asset-{n}', 7) for n in range(500)])"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str([owner(f"asset-{number}", 7) for number in range(500)])


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_assets_are_spread_evenly(workers: int) -> None:
    """Names that differ in a number only are divided as if by chance."""
    found = np.bincount([owner(f"pump-{number}", workers) for number in range(2000)], minlength=workers)
    expected = 2000 / workers
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected)
