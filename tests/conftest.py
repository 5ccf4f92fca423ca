"""Graphs that several tests look at, written once."""

import pytest

from tests.architectures import Example, random_example
from trainer.export import export_all
from trainer.model import ModelSpec

ROUNDED = ModelSpec(sensors=3, window_length=8, units=(24, 12), horizons=2)
"""Large enough for TFLite to round its weights: it leaves arrays of under 1024 numbers as they are."""


@pytest.fixture(scope="session")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A forecaster with its graphs for both runtimes in both precisions."""
    example = random_example(ROUNDED, tmp_path_factory.mktemp("rounded") / "graphs")
    export_all(example.weights, example.directory, "int8")
    return example
