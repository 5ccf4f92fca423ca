"""Laws of the search space: what a configuration may say, and how it is refused."""

from pathlib import Path

import pytest

from edge_agent.contract.errors import ConfigurationError
from trainer.fit_options import FitOptions, broken_rule
from trainer.tune_space import Dimension, default_space, read_space


def test_what_is_written_is_what_is_tried(tmp_path: Path) -> None:
    """Lists are choices, tables are ranges, whole where both ends are."""
    path = tmp_path / "tune.toml"
    path.write_text(
        "[fit]\nepochs = 3\n[tune.space]\nunits = [[8], [8, 4]]\nwindow_length = {low = 8, high = 32, step = 8}\n"
        "learning_rate = {low = 1e-4, high = 1e-2, log = true}\n"
    )
    assert read_space(path) == {
        "units": Dimension(choices=((8,), (8, 4))),
        "window_length": Dimension(low=8, high=32, step=8, whole=True),
        "learning_rate": Dimension(low=1e-4, high=1e-2, log=True),
    }


def test_the_default_space_keeps_the_rules_of_fit(tmp_path: Path) -> None:
    """Every value of the default space is one that `fit` takes; it stands where nothing is written."""
    path = tmp_path / "fit.toml"
    path.write_text("[fit]\nepochs = 3\n")
    assert read_space(path) == read_space(None) == default_space()
    assert {"units", "window_length", "learning_rate"} <= set(default_space())
    for key, dimension in default_space().items():
        assert hasattr(FitOptions(), key)
        for value in dimension.choices or (dimension.low, dimension.high):
            assert broken_rule(key, value) is None


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("mood = [1]", "mood: cannot be searched; what can is"),
        ("alarms_per_week = [1, 2]", "alarms_per_week: cannot be searched"),
        ("units = [[0]]", "units: a layer is 0"),
        ("epochs = []", "epochs: must be a list of values, or a table of low, high"),
        ("epochs = {low = 1}", "epochs: must be a list of values, or a table of low, high"),
        ("epochs = {low = 9, high = 2}", "epochs: low and high must be numbers, high no lower than low"),
        (
            "epochs = {low = 0, high = 2, log = true}",
            "epochs: log must be true or false; with true, low is above 0",
        ),
        ("epochs = {low = 1, high = 2, step = 0}", "epochs: step must be a number above 0"),
        ("epochs = {low = 'a', high = 2}", "epochs: is 'a', must be a whole number"),
        ("", "must be a table of keys of [fit]"),
    ],
)
def test_what_cannot_be_searched_is_refused(written: str, rule: str, tmp_path: Path) -> None:
    """A key or range that makes no sense is one line with file, field and rule."""
    path = tmp_path / "tune.toml"
    path.write_text(f"[tune.space]\n{written}\n")
    with pytest.raises(ConfigurationError, match=r"tune\.space") as refused:
        read_space(path)
    assert str(refused.value).startswith(f"{path}: tune.space")
    assert rule in str(refused.value)
