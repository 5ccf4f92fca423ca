"""What is installed and what it drags in: the locks, and the modules that the daemon's import loads."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge_agent.bench.daemon import Daemon
from tests.broker import Broker, Listener, broker
from tests.commands import run, table, text
from tests.tiny_machine import SENSORS, START, TINY_BUNDLE, normal_values
from trainer.cli import main as trainer

__all__ = ["broker"]

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    "edge": ("cpu",),
    "full": ("test",),
    "gpu": ("gpu",),
    "litert": ("litert",),
    "bench": ("bench",),
    "bench-training": ("bench-training",),
}
TRAINING = frozenset({"tensorflow", "keras", "pandas", "scipy", "polars", "scikit-learn", "matplotlib"})
# These read and write history files, which the extra `history` pays for; the daemon's life needs none of them.
HISTORY_READERS = re.compile(r"edge_agent\.(history\w*|replay|record|recording)$")
MEGABYTE = 1_000_000


def lock_text(name: str) -> str:
    """The text of one lock."""
    return (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")


def entries(name: str) -> list[str]:
    """One string per locked requirement, its hashes included."""
    return re.split(r"\n(?=\S)", lock_text(name).strip())


def locked(name: str) -> dict[str, list[Requirement]]:
    """The locked requirements by distribution; one has several where Python versions need different releases."""
    found: dict[str, list[Requirement]] = {}
    for entry in entries(name):
        requirement = Requirement(entry.partition(" \\\n")[0])
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for under these extras, its own extras followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(line) for line in project["dependencies"]]
    waiting = list(extras)
    while waiting:
        for line in project["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(line)
            if requirement.name == project["name"]:
                waiting.extend(requirement.extras)
            else:
                asked.append(requirement)
    return asked


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_requirement_is_exact_and_hashed(name: str) -> None:
    """In hash mode pip refuses a lock unless each requirement is pinned and has a hash."""
    for entry in entries(name):
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_place(name: str) -> None:
    """A lock serves every mirror: it names no host, index, folder or file of the machine that made it."""
    text = lock_text(name)
    assert not re.search(r"://|--index|--extra-index|--find-links|(^|\s)/|#", text)
    assert len(text) < MEGABYTE


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_a_lock_holds_what_the_project_asks_for(name: str, extras: tuple[str, ...]) -> None:
    """Each dependency of pyproject.toml is locked at a release that it allows; if not, run `make lock`."""
    pins = locked(name)
    for requirement in wanted(extras):
        for pin in pins.get(canonicalize_name(requirement.name), [Requirement("absent==0")]):
            (version,) = (specifier.version for specifier in pin.specifier)
            assert pin.name != "absent", f"{requirement} is missing in {name}.lock"
            assert requirement.specifier.contains(version), f"{name}.lock: {pin}, asked for {requirement}"


@pytest.mark.parametrize("name", ["edge", "gpu", "litert"])
def test_the_edge_set_has_nothing_of_training(name: str) -> None:
    """A device that only scores installs no TensorFlow, Keras, pandas or SciPy."""
    assert not set(locked(name)) & TRAINING


def test_no_lock_holds_both_runtimes() -> None:
    """The two ONNX Runtime wheels overwrite each other's files, so no lock holds both."""
    for name in LOCKS:
        # The library beside the training runs no bundle, and LiteRT runs its own graphs: they need neither.
        without = name in ("bench-training", "litert")
        assert len({"onnxruntime", "onnxruntime-gpu"} & set(locked(name))) == int(not without)


def test_the_bench_set_changes_nothing_of_the_full_one() -> None:
    """What `make bench` adds to an installation leaves every package there at its release."""
    full = locked("full")
    for name, pins in locked("bench").items():
        assert name == "river" or sorted(map(str, pins)) == sorted(map(str, full[name])), name


def lay_out(name: str, directory: Path) -> Path:
    """Lay out in a directory what a lock installs, at its releases and nothing else; return a Python that sees it.

    The files are those of this environment, so that no index is asked.
    """
    packages = directory / "packages"
    packages.mkdir()
    for pins in locked(name).values():
        for pin in pins:
            if pin.marker is not None and not pin.marker.evaluate():
                continue
            found = importlib.metadata.distribution(pin.name)
            assert pin.specifier.contains(found.version), f"{pin}, installed is {found.version}"
            for top in {path.parts[0] for path in found.files or ()} - {"..", "__pycache__"}:
                if not (packages / top).exists():
                    (packages / top).symlink_to(str(found.locate_file(top)))
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages}:{ROOT} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    return python


def test_what_is_locked_for_litert_runs_the_agent(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what `litert.lock` installs alone `check` finds nothing wrong, and the daemon scores with LiteRT."""
    history, bundle, config = tmp_path / "pump.csv", tmp_path / "bundle", tmp_path / "edge-agent.toml"
    history.write_bytes(text(table(300)))
    run(
        trainer, capsys, "fit", "--history", history, "--out", bundle, "--runtime", "litert",
        "--units", "4", "--window", "8", "--epochs", "0",
    )  # fmt: skip
    # The README's own lines: a bundle of either runtime, and which of them runs it.
    config.write_text(
        f'[bundle]\npath = "bundle"\nruntime = "litert"\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
        '[[mqtt.inputs]]\ntopic = "plant/{asset}"\n[metrics]\nport = 0\n'
    )
    python = lay_out("litert", tmp_path)
    command = [str(python), "-m", "edge_agent.cli"]
    done = subprocess.run(
        [*command, "check", "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"packages: ai-edge-litert {importlib.metadata.version('ai-edge-litert')}\n" in done.stdout
    assert "step with litert on cpu" in done.stdout
    monkeypatch.setattr(sys, "executable", str(python))
    with Daemon({}, config) as agent, Listener(broker.port, "forewarn/#") as listener:
        agent.wait_for_metric("forewarn_mqtt_connected", 1)
        rows = [
            {"time": START + row, **dict(zip(SENSORS, map(float, line), strict=True))}
            for row, line in enumerate(normal_values(100))
        ]
        listener.publish("plant/pump-1", json.dumps(rows).encode())
        agent.wait_for_metric("forewarn_samples_scored_total", 80)
        mapped = agent.libraries()
    assert "ai_edge_litert" in mapped
    assert "onnxruntime" not in mapped


def test_a_command_names_the_extra_that_it_lacks(tmp_path: Path) -> None:
    """Where the reader of histories is not installed `replay` says in one line what brings it."""
    python = lay_out("edge", tmp_path)
    done = subprocess.run(
        [str(python), "-m", "edge_agent.cli", "replay", "--bundle", str(TINY_BUNDLE), "--history", "pump.csv"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "edge-agent: polars is not installed: pip install 'forewarn[history]'\n"


def daemon_modules() -> list[str]:
    """Every module of the daemon but the readers of history files, as dotted names."""
    paths = sorted((ROOT / "edge_agent").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [
        name.removesuffix(".__init__")
        for name in names
        if not HISTORY_READERS.match(name) and not name.endswith(".__main__")
    ]


def test_the_import_of_the_daemon_loads_nothing_of_training() -> None:
    """Importing every module of the daemon loads neither training libraries nor the history reader."""
    program = (
        "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *daemon_modules()],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert not loaded & {
        "tensorflow",
        "keras",
        "pandas",
        "scipy",
        "polars",
        "sklearn",
        "matplotlib",
        "trainer",
    }
