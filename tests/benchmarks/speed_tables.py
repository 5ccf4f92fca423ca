"""The tables of docs/benchmarks.md and the README's of figures to reach: `python -m tests.benchmarks.speed_tables`.

Runs are kept under `docs/benchmarks/speed` by `python -m tests.benchmarks --out docs/benchmarks/speed`. What stands
between the markers is this program's output and nothing else; a test holds them together.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.readme_table import README, ROOT, with_table
from tests.benchmarks.tables import part_pages, targets_page
from tests.benchmarks.targets import Runs

DOCUMENT = ROOT / "docs" / "benchmarks.md"
RUNS = ROOT / "docs" / "benchmarks" / "speed"
BEGIN = "<!-- made by python -m tests.benchmarks.speed_tables from docs/benchmarks/speed; do not edit -->"
END = "<!-- end of what is made of speed -->"
NOTHING = "No run is kept: `make bench-tables` makes them."
PARTS = ("kernel", "agent", "latency", "memory", "scaling", "training")
GPU_PART = "training-gpu"
"""Needs a GPU and JAX and PyTorch beside it; never among `all`."""
LIBRARIES = (
    "python",
    "numpy",
    "blas",
    "onnxruntime",
    "keras",
    "tensorflow",
    "paho-mqtt",
    "river",
    "mosquitto",
)


def stored_runs(folder: Path = RUNS) -> Runs:
    """Return the stored runs by part, in the order of the parts."""
    paths = {part: folder / f"{part}.json" for part in (*PARTS, GPU_PART)}
    return {part: json.loads(path.read_text("utf-8")) for part, path in paths.items() if path.is_file()}


def targets_text(runs: Runs) -> str:
    """Return what belongs between the README's markers."""
    return f"{targets_page(runs).markdown()}\n\n{_sources(runs)}" if runs else NOTHING


def document_text(runs: Runs) -> str:
    """Return what belongs between the markers of docs/benchmarks.md."""
    if not runs:
        return NOTHING
    pages = [page.markdown() for part, run in runs.items() for page in part_pages(part, run)]
    return "\n\n".join([targets_page(runs).markdown(), *pages, _sources(runs)])


def _sources(runs: Runs) -> str:
    """Return a line on each run: what it was made with."""
    return "\n".join(f"- `{part}`: {_source(run)}" for part, run in runs.items())


def _source(run: dict[str, Any]) -> str:
    machine = run["machine"]
    quick = "**the quick form**, " if run["quick"] else ""
    versions = ", ".join(f"{name} {machine[name]}" for name in LIBRARIES)
    return (
        f"{quick}{run['rounds']} rounds in {run['seconds'] / 60.0:.0f} min, version {run['version']}, "
        f"{machine['cpu']}, {machine['cores']} cores, load average {machine['load_average']:.1f}; {versions}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or with `--check` only say whether they stand there."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.speed_tables", description="Stored runs into the documents."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if they differ")
    options = parser.parse_args(arguments)
    runs = stored_runs()
    differs = False
    for path, made in ((DOCUMENT, document_text(runs)), (README, targets_text(runs))):
        text = path.read_text("utf-8")
        wanted = with_table(text, made, BEGIN, END)
        differs |= wanted != text
        if not options.check:
            path.write_text(wanted, encoding="utf-8")
    return int(differs and options.check)


if __name__ == "__main__":
    sys.exit(main())
