"""Laws of an interrupted fit: nothing that was learnt is lost, and the end is that of one that was not interrupted."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.bundle import read_bundle
from edge_agent.contract.types import Float32
from trainer.checkpoint import Slot
from trainer.cli import main
from trainer.release import WEIGHTS

WORDS = ("--units", "4", "--window", "12", "--epochs", "4", "--ignore-column", "fault", "--json")
# A real kill at a known moment: inside the process, while the state of the third epoch is being put in place.
_KILLED = """
import os, signal, sys
from pathlib import Path
import trainer.checkpoint
from trainer.cli import main
saved, replace = [], Path.replace
def put(draft, target):
    if draft.suffix == ".new":
        saved.append(target)
        if len(saved) == {number} and not {after}:
            os.kill(os.getpid(), signal.SIGKILL)
    moved = replace(draft, target)
    if draft.suffix == ".new" and len(saved) == {number}:
        os.kill(os.getpid(), {signal})
    return moved
Path.replace = put
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short history of the simulated pump, which is learnt in folds."""
    path = tmp_path_factory.mktemp("history") / "history.csv"
    assert main(["simulate", "--out", str(path), "--hours", "0.4"]) == 0
    return path


@pytest.fixture(scope="module")
def uninterrupted(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a fit that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "bundle"
    assert main(["fit", "--history", str(history), "--out", str(out), *WORDS]) == 0
    return out


def _interrupted(
    history: Path, out: Path, number: int, signal_number: int, after: bool = True
) -> "subprocess.CompletedProcess[str]":
    program = _KILLED.format(number=number, after=after, signal=int(signal_number))
    command = [sys.executable, "-c", program, "fit", "--history", str(history), "--out", str(out), *WORDS]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def _weights(bundle: Path) -> list[Float32]:
    with np.load(bundle / WEIGHTS) as archive:
        return [archive[name] for name in archive.files if archive[name].dtype.kind == "f"]


@pytest.mark.parametrize(("number", "after"), [(3, True), (3, False), (6, True)])
def test_a_killed_fit_goes_on_and_ends_as_if_it_had_not_been(
    history: Path,
    uninterrupted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: int,
    after: bool,
) -> None:
    """Killed after an epoch, while its state is written, or in a later stage: the next run gives the same bundle."""
    out = tmp_path / "bundle"
    killed = _interrupted(history, out, number, signal.SIGKILL, after)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    capsys.readouterr()
    assert main(["fit", "--history", str(history), "--out", str(out), *WORDS]) == 0
    said = capsys.readouterr()
    assert "it goes on" in said.err
    ours, theirs = read_bundle(out), read_bundle(uninterrupted)
    for one, other in zip(_weights(out), _weights(uninterrupted), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    record, whole = ours.manifest.trained["training"], theirs.manifest.trained["training"]
    np.testing.assert_allclose(record["stop_losses"], whole["stop_losses"], rtol=1e-5)
    assert record["best_epoch"] == whole["best_epoch"]
    assert ours.manifest.threshold.value == pytest.approx(theirs.manifest.threshold.value, rel=1e-4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_other_options_begin_anew(history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was learnt with other options is thrown away."""
    out = tmp_path / "bundle"
    assert _interrupted(history, out, 2, signal.SIGKILL).returncode == -signal.SIGKILL
    words = [*WORDS[:-1], "--seed", "5", "--json"]
    assert main(["fit", "--history", str(history), "--out", str(out), *words]) == 0
    assert "it goes on" not in capsys.readouterr().err
    assert len(read_bundle(out).manifest.trained["training"]["losses"]) >= 1


def test_ctrl_c_leaves_the_best_model_so_far(history: Path, tmp_path: Path) -> None:
    """Ctrl-C in the second epoch: the bundle is made of the best of two, the program says so, and ends with 0."""
    out = tmp_path / "bundle"
    ended = _interrupted(history, out, 1, signal.SIGINT)
    assert ended.returncode == 0, ended.stderr
    assert "interrupted: training ends with the best weights so far" in ended.stderr
    record = read_bundle(out).manifest.trained["training"]
    assert record["interrupted"]
    assert record["epochs"] == 2
    assert json.loads(ended.stdout)["epochs"] == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_is_made_by_one_process_at_a_time(
    history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second fit of the same bundle is refused in one line."""
    import fcntl

    directory = tmp_path / ".bundle.fitting"
    directory.mkdir()
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["fit", "--history", str(history), "--out", str(tmp_path / "bundle"), *WORDS]) == 2
    assert "another process is fitting this bundle" in capsys.readouterr().err


def test_what_cannot_be_read_is_no_state(tmp_path: Path) -> None:
    """A file that was cut, or is none of ours, is as good as none."""
    slot = Slot(tmp_path / "epochs.npz")
    assert slot.load() is None
    slot.save({"epoch": 2}, {"best": [np.ones(3)]})
    whole = slot.path.read_bytes()
    state = slot.load()
    assert state is not None
    assert state.facts == {"epoch": 2}
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        slot.path.write_bytes(whole[:size])
        assert slot.load() is None
