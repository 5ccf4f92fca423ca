"""What is installed and what it drags in: the locks, and the modules that the daemon's import loads."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    "edge": ("cpu",),
    "full": ("test",),
    "gpu": ("gpu",),
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


@pytest.mark.parametrize("name", ["edge", "gpu"])
def test_the_edge_set_has_nothing_of_training(name: str) -> None:
    """A device that only scores installs no TensorFlow, Keras, pandas or SciPy."""
    assert not set(locked(name)) & TRAINING


def test_no_lock_holds_both_runtimes() -> None:
    """The two ONNX Runtime wheels overwrite each other's files, so no lock holds both."""
    for name in LOCKS:
        # The library beside the training runs no bundle and needs neither.
        assert len({"onnxruntime", "onnxruntime-gpu"} & set(locked(name))) == int(name != "bench-training")


def test_the_bench_set_changes_nothing_of_the_full_one() -> None:
    """What `make bench` adds to an installation leaves every package there at its release."""
    full = locked("full")
    for name, pins in locked("bench").items():
        assert name == "river" or sorted(map(str, pins)) == sorted(map(str, full[name])), name


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
