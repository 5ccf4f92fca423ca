"""Laws of training on another backend of Keras than TensorFlow, and of machines that have no TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.contract.bundle import read_bundle
from trainer.cli import main

WORDS = ("--units", "6", "--window", "12", "--epochs", "3", "--ignore-column", "fault", "--json")
# TensorFlow cannot be taken out of an environment; only the question whether it is there is answered otherwise.
_WITHOUT_TENSORFLOW = """
import sys
import trainer.export
from trainer.cli import main
trainer.export.can_export = lambda: False
status = main(sys.argv[1:])
assert "tensorflow" not in sys.modules, "training read TensorFlow"
sys.exit(status)
"""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of the simulated pump that is long enough for one block to learn from."""
    path = tmp_path_factory.mktemp("history") / "history.csv"
    assert main(["simulate", "--out", str(path), "--hours", "2"]) == 0
    return path


def _run(backend: str, words: list[str], program: list[str]) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, *program, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_tensorflow_does_not_read_jax() -> None:
    """Both are installed here; who trains with one of them need not wait for the other, and can have it later."""
    program = "import sys, trainer.backend; assert 'jax' not in sys.modules; import jax; jax.jit"
    done = _run("tensorflow", [], ["-c", program])
    assert done.returncode == 0, done.stderr


def test_what_jax_learns_is_exported_through_tensorflow(history: Path, tmp_path: Path) -> None:
    """The same command trains on JAX: proven graphs, a forecast that is better than none, and the backend is told."""
    words = ["fit", "--history", str(history), "--out", str(tmp_path / "bundle"), *WORDS]
    done = _run("jax", words, ["-m", "trainer.cli"])
    assert done.returncode == 0, done.stderr
    assert "(jax)" in done.stderr
    bundle = read_bundle(tmp_path / "bundle")
    record = bundle.manifest.trained["training"]
    assert record["backends"] == ["jax"]
    assert record["best_epoch"] > 0
    assert min(record["stop_losses"]) < record["stop_losses"][0]
    assert json.loads(done.stdout)["parity"] == bundle.manifest.parity
    assert bundle.manifest.parity


def test_without_tensorflow_nothing_learnt_is_lost(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine with JAX alone trains, says where it is kept and ends with 1; elsewhere the same command exports it."""
    words = ["fit", "--history", str(history), "--out", str(tmp_path / "bundle"), *WORDS]
    there = _run("jax", words, ["-c", _WITHOUT_TENSORFLOW])
    assert there.returncode == 1, there.stderr
    assert "this machine can train but not export" in there.stderr
    assert (
        there.stderr.strip()
        .splitlines()[-1]
        .endswith("TensorFlow is not installed: graphs are exported through it")
    )
    assert [entry.name for entry in tmp_path.iterdir()] == [".bundle.fitting"]
    capsys.readouterr()
    assert main(words) == 0
    assert "it goes on" in capsys.readouterr().err
    record = read_bundle(tmp_path / "bundle").manifest.trained["training"]
    assert record["backends"] == ["jax"]
    assert record["best_epoch"] > 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]
