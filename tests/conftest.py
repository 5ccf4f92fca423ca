"""Graphs that several tests look at, written once."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.architectures import Example


@pytest.fixture(scope="session")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> "Example":
    """A forecaster with its graphs for both runtimes in both precisions."""
    # Imported late: Keras takes seconds that the daemon's tests need not wait.
    from tests.architectures import ROUNDED, random_example
    from trainer.export import export_all

    example = random_example(ROUNDED, tmp_path_factory.mktemp("rounded") / "graphs")
    export_all(example.weights, example.directory, "int8")
    return example
