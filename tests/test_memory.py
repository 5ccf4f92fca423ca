"""Laws of the trainer's memory: of a long history it holds a few copies in float32, and no tensor of its windows."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.contract.bundle import read_bundle
from edge_agent.history import write_parquet

ROWS = 1_000_000
FEW_ROWS = 1_000
SENSORS = 10
START = 1_767_225_600
TABLE_MEGABYTES = ROWS * SENSORS * 4 / 1e6
MOST_MEGABYTES = 3 * TABLE_MEGABYTES + 200.0
"""Above what a short history takes, which is mostly that of the libraries."""
# The system's own record of the most that was resident: `ru_maxrss` would begin with the memory of the test's process.
_FIT = "import sys; from trainer.cli import main; code = main(sys.argv[1:]);"
_READ = (
    "import sys; from pathlib import Path; from edge_agent.history import read_history;"
    "from trainer.cleaning import clean; clean(read_history([Path(sys.argv[1])])); code = 0;"
)
_TELL = "print(open('/proc/self/status').read(), file=sys.stderr); sys.exit(code)"


def _values(rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return (rows, SENSORS) of waves and noise, ten thousand rows again and again: their text is made in a moment."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(10_000)[:, None] * 2 * np.pi / rng.choice([40, 100, 250, 1000], SENSORS))
    period = np.round(10 * np.arange(SENSORS) + 2 * wave + 0.3 * rng.normal(size=wave.shape), 4)
    return np.asarray(np.resize(period, (rows, SENSORS)), np.float32)


def _write(path: Path, rows: int) -> Path:
    values = _values(rows)
    names = [f"sensor_{number}" for number in range(SENSORS)]
    if path.suffix == ".parquet":
        time = ((START + np.arange(rows)) * 1000).astype("datetime64[ms]")
        write_parquet(path, {"time": time, **dict(zip(names, values.T, strict=True))})
        return path
    lines = [",".join(f"{cell:.4f}" for cell in row) for row in values[:10_000]]
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(["time", *names]) + "\n")
        file.writelines(f"{START + row},{lines[row % 10_000]}\n" for row in range(rows))
    return path


@pytest.fixture(scope="module", params=["csv", "parquet"])
def histories(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A short and a long history of the same machine."""
    directory = tmp_path_factory.mktemp("histories")
    short, long = directory / f"short.{request.param}", directory / f"long.{request.param}"
    return _write(short, FEW_ROWS), _write(long, ROWS)


def _peak_megabytes(program: str, *words: object) -> tuple[float, str]:
    """Return the most memory that was ever resident in a process of its own, in 10^6 bytes, and what it printed."""
    command = [sys.executable, "-c", program + _TELL, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^VmHWM:\s+(\d+) kB$", done.stderr, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024 / 1e6, done.stdout


def test_reading_a_long_history_takes_a_few_copies_of_it(histories: tuple[Path, Path]) -> None:
    """A million rows of ten sensors are read and cleaned within three times their float32 table and 200 MB."""
    few, many = (_peak_megabytes(_READ, path)[0] for path in histories)
    assert many - few <= MOST_MEGABYTES


def test_fitting_a_long_history_takes_a_few_copies_of_it(tmp_path: Path) -> None:
    """`fit` of a million rows of ten sensors takes, above that of a thousand, three times their table and 200 MB."""
    small = ("--units", "4", "--epochs", "1", "--window", "8", "--json")
    peaks = []
    for rows in (FEW_ROWS, ROWS):
        history, bundle = _write(tmp_path / f"{rows}.csv", rows), tmp_path / str(rows)
        peak, said = _peak_megabytes(_FIT, "fit", "--history", history, "--out", bundle, *small)
        assert json.loads(said)["rows"] == rows
        peaks.append(peak)
    assert peaks[1] - peaks[0] <= MOST_MEGABYTES
    trained = read_bundle(tmp_path / str(ROWS)).manifest.trained
    # Calibration looks at the newest rows alone; the record is of all.
    assert trained["samples"] == ROWS
    assert (trained["first_time"], trained["last_time"]) == (START, START + ROWS - 1)
