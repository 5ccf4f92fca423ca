"""Laws of what stands beside a training: logs, devices, and how busy they are."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.test_training import SPEC, logistic
from trainer import devices
from trainer.dataset import SubSequences
from trainer.device_series import Drawn
from trainer.devices import on_all_devices, training_device
from trainer.highway import fit_highway
from trainer.network import build_model
from trainer.training import Trainer, TrainingOptions
from trainer.watch import Utilisation, Watch

OPTIONS = TrainingOptions(epochs=2, windows_per_epoch=64)
_TWO_DEVICES = """
import tensorflow
cpu = tensorflow.config.list_physical_devices("CPU")[0]
tensorflow.config.set_logical_device_configuration(cpu, [tensorflow.config.LogicalDeviceConfiguration()] * 2)
from tests.test_training import SPEC, logistic
from trainer.devices import on_all_devices
from trainer.highway import fit_highway
from trainer.network import build_model
from trainer.training import Trainer, TrainingOptions
segments = logistic(400)
with on_all_devices(["CPU:0", "CPU:1"]):
    model = build_model(SPEC, fit_highway(segments), seed=3)
    record = Trainer(model, SPEC, TrainingOptions(epochs=2, windows_per_epoch=64)).train(segments, segments)
    print("replicas", tensorflow.distribute.get_strategy().num_replicas_in_sync, *record.stop_losses)
"""


def test_logs_are_what_tensorboard_reads(tmp_path: Path) -> None:
    """Each epoch's losses and learning rate stand in a file of events."""
    segments = logistic(300)
    model = build_model(SPEC, fit_highway(segments))
    Trainer(model, SPEC, OPTIONS, watch=Watch(lambda _: None, tmp_path)).train(segments, segments)
    (file,) = (tmp_path / "training").iterdir()
    assert "tfevents" in file.name
    content = file.read_bytes()
    for name in (b"loss/training", b"loss/later", b"learning_rate", b"seconds"):
        assert content.count(name) == 2


def test_a_series_too_long_for_the_device_is_learnt_as_one_that_fits() -> None:
    """What an epoch draws of a long series is what it would gather on the device."""
    segments = logistic(500)
    source = SubSequences(segments, 12, 2)
    whole, drawn = Drawn(source, 40, 7), Drawn(source, 40, 7, resident=0)
    assert whole.whole
    assert not drawn.whole
    for epoch in (0, 3):
        steps = np.arange(14)
        ours = drawn.rows(epoch)[drawn.starts(epoch)[:, None] + steps]
        np.testing.assert_array_equal(whole.rows(epoch)[whole.starts(epoch)[:, None] + steps], ours)
    assert (whole.numbers(0) != whole.numbers(1)).any()


def test_two_devices_share_a_training() -> None:
    """With two logical devices each takes a part of every batch, and the losses are nearly those of one device."""
    done = subprocess.run(
        [sys.executable, "-c", _TWO_DEVICES], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    word, replicas, *losses = done.stdout.split()
    assert (word, replicas) == ("replicas", "2")
    segments = logistic(400)
    model = build_model(SPEC, fit_highway(segments), seed=3)
    alone = Trainer(model, SPEC, OPTIONS).train(segments, segments)
    assert [float(loss) for loss in losses] == pytest.approx(alone.stop_losses, rel=0.05)


def test_one_device_is_used_as_it_is() -> None:
    """Without a second device nothing is mirrored."""
    with on_all_devices(["CPU:0"]):
        assert build_model(SPEC, fit_highway(logistic(100))).trainable_variables


@pytest.mark.parametrize(
    ("found", "dropout", "told"),
    [
        ([], False, "no graphics processor is seen"),
        (["gpu:0"], False, "one graphics processor (tensorflow), with cuDNN's fast LSTM"),
        (
            ["gpu:0", "gpu:1"],
            True,
            "2 graphics processors (tensorflow), without cuDNN, which has no recurrent dropout",
        ),
    ],
)
def test_the_device_is_told(
    monkeypatch: pytest.MonkeyPatch, found: list[str], dropout: bool, told: str
) -> None:
    """A person is told what it trains on, and whether by cuDNN."""
    monkeypatch.setattr(devices, "_graphics", lambda: found)
    assert told in training_device(dropout)


def test_how_busy_a_processor_was_is_the_mean_of_what_its_program_says(tmp_path: Path) -> None:
    """Of two processors the mean is told; without the program, or where it fails, nothing is."""
    program = tmp_path / "nvidia-smi"
    seen = tmp_path / "seen"
    os.mkfifo(seen)
    program.write_text(f"#!/bin/sh\nprintf '90\\n70\\n'\necho > {seen}\n", encoding="utf-8")
    program.chmod(0o755)
    busy = Utilisation(str(program))
    with busy.measured():
        seen.read_text(encoding="utf-8")
    assert busy.percent == pytest.approx(80.0)
    broken = Utilisation(str(tmp_path / "none"))
    with broken.measured():
        pass
    assert broken.percent is None
