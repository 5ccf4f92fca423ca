"""What a person configures reaches the part that it is meant for, and the documents tell of all of it."""

import argparse
import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

import trainer.cli
from tests.small_bundle import SENSORS, normal_values
from trainer.blocks import make_plan
from trainer.cleaning import Cleaned, Series
from trainer.fit import _uncalibrated
from trainer.fit_options import FitOptions, read_options
from trainer.heads import Head
from trainer.learning import regularisation, training_options
from trainer.network import Regularisation
from trainer.training import TrainingOptions
from trainer.verify import Proof

ROOT = Path(__file__).parent.parent
CONFIGURED = """[fit]
name = "pump"
window_length = 16
units = [8, 4]
max_gap_ticks = 5
epochs = 7
batch_size = 32
learning_rate = 0.01
patience = 3
windows_per_epoch = 100
seed = 11
alarms_per_week = 2.5
usual_days = 0.125
off_when = "flow<1"
settle_ticks = 4
horizons = 2
highway = false
convolution = [6, 3]
normalisation = "layer"
dropout = 0.1
lstm_dropout = 0.2
recurrent_dropout = 0.3
kernel_l2 = 0.01
recurrent_l2 = 0.02
head = "quantile"
quantiles = [0.25, 0.5, 0.75]
clip_norm = 2
clip_value = 0.5
schedule = "cosine"
loss = "auto"
precision = "int8"
runtime = "litert"

[fit.units_of_sensors]
flow = "m³/h"

[fit.alarms]
open_count = 2
"""


def test_what_is_configured_arrives(tmp_path: Path) -> None:
    """Each key of the file is found again in the network's shape, the training, or the manifest."""
    path = tmp_path / "trainer.toml"
    path.write_text(CONFIGURED, encoding="utf-8")
    options = FitOptions(**read_options(path))
    rows = 20_000
    series = Series("pump-1", np.arange(rows), normal_values(rows), None)
    cleaned = Cleaned(SENSORS, 1.0, 0.0, (series,), {}, (), (), rows)
    plan = make_plan(cleaned, options)
    spec = plan.spec
    assert (spec.window_length, spec.units, spec.horizons, spec.highway) == (16, (8, 4), 2, False)
    assert (spec.convolution, spec.normalisation, spec.head) == (
        (6, 3), "layer", Head("quantile", (0.5, 0.25, 0.75)),
    )  # fmt: skip
    assert regularisation(options) == Regularisation(0.1, 0.2, 0.3, 0.01, 0.02)
    assert training_options(options) == TrainingOptions(
        epochs=7, batch_size=32, learning_rate=0.01, patience=3, clipnorm=2, clipvalue=0.5,
        windows_per_epoch=100, seed=11, schedule="cosine", loss="auto",
    )  # fmt: skip
    manifest = _uncalibrated(plan, tmp_path, Proof({"step.onnx": 1e-7}, {"step.onnx": 9})).manifest
    assert (manifest.name, manifest.window_length, manifest.max_gap_ticks) == ("pump", 16, 5)
    assert (manifest.head, manifest.horizons, manifest.inference) == ("quantile", (1, 2), "step")
    assert (manifest.precision, manifest.runtime) == ("int8", "litert")
    assert (manifest.threshold.alarms_per_week, manifest.alarm_rules.open_count) == (2.5, 2)
    assert [sensor.unit for sensor in manifest.sensors] == ["m³/h", ""]
    # Ten thousand eight hundred seconds are usual, and the history is longer: what is usual trails.
    assert manifest.adaptation == "trailing"
    assert manifest.off_condition is not None
    assert (manifest.off_condition.sensor, manifest.off_condition.settle_ticks) == ("flow", 4)
    assert manifest.architecture["kind"] == "convolution+lstm"
    assert manifest.architecture["parameters"] == ["quantile 0.5", "quantile 0.25", "quantile 0.75"]
    assert (manifest.parity, manifest.sizes) == ({"step.onnx": 1e-7}, {"step.onnx": 9})
    assert manifest.state_size == 2 * (8 + 4) + 2 * spec.inputs


def _rows() -> list[list[str]]:
    text = (ROOT / "docs" / "trainer.md").read_text(encoding="utf-8")
    section = text[text.index("## Options") : text.index("## Graphs")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ") and not line.startswith("| Option |")
    ]


def _fit_flags() -> dict[str, str]:
    """Return the flag of each field that has one."""
    parser: Any = trainer.cli._parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    known = {one.name for one in fields(FitOptions)}
    return {
        action.dest: action.option_strings[0]
        for action in commands.choices["fit"]._actions
        if action.dest in known
    }


def test_the_documents_list_every_option_with_flag_and_key() -> None:
    """The table has exactly the keys that a file may set, each with its flag, or none where there is none."""
    flags = _fit_flags()
    written = {row[4].strip("`"): row[3].strip("`") for row in _rows()}
    keys = [one.name for one in fields(FitOptions) if one.metadata.get("key", True)]
    assert written == {key: flags.get(key, "") for key in keys}


def test_every_option_is_covered_by_a_test_that_exists() -> None:
    """Each test that the table names is a function of the file that it names."""
    for row in _rows():
        found = re.fullmatch(r"`(tests/\w+\.py)::(test_\w+)`", row[5])
        assert found is not None, row
        tree = ast.parse((ROOT / found.group(1)).read_text(encoding="utf-8"))
        assert found.group(2) in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row
