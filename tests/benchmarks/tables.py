"""The figures as tables, for a terminal and for the documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from tests.benchmarks.targets import Runs, verdicts

Figures = dict[str, Any]
_LIFE = {
    "wall_seconds": "start until ready, s",
    "cpu_seconds": "start until ready, CPU-s",
    "import_wall_seconds": "of which imports, s",
    "import_cpu_seconds": "of which imports, CPU-s",
}


@dataclass(frozen=True)
class Page:
    """One table: the first column is text, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def rich(self) -> Table:
        """Return it for a terminal."""
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return it for a document; the title heads the first column."""
        head = (f"{self.title}" if not self.columns[0] else f"{self.title}: {self.columns[0]}",)
        lines = [head + self.columns[1:], ("---", *("--:",) * (len(self.columns) - 1)), *self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def targets_page(runs: Runs) -> Page:
    """Return each figure to reach that was measured, what it must and should be, and whether it is."""
    rows = []
    for target, value, verdict in verdicts(runs):
        sign = "≥" if target.least else "≤"
        unit = f" {target.unit}" if target.unit else ""
        limits = (f"{sign} {number(limit)}" for limit in (target.must, target.aim))
        rows.append((target.title, *limits, f"{number(value)}{unit}", verdict))
    return Page("Figures to reach", ("", "Must", "Aim", "Measured", ""), rows)


def part_pages(part: str, run: Figures) -> Iterator[Page]:
    """Yield the tables of what one part measured."""
    yield from {
        "kernel": _kernel,
        "agent": _agent,
        "latency": _latency,
        "memory": _memory,
        "scaling": _scaling,
        "training": _training,
        "training-gpu": _training_on_gpu,
    }[part](run)


def machine_page(facts: Figures) -> Page:
    """Return what the figures depend on beside the code."""
    rows = [
        (name.replace("_", " "), f"{value:.2f}" if isinstance(value, float) else str(value))
        for name, value in facts.items()
    ]
    return Page("Machine", ("", ""), rows)


def _kernel(run: Figures) -> Iterator[Page]:
    columns = ("", "Median", "Least to most", "Ratio", "Least to most")
    yield Page(
        "Scoring in one process, samples per CPU-second",
        columns,
        [
            (one["name"], *_spread(one["samples_per_cpu_second"]), *_spread(one["ratio"]))
            for one in run["scoring"]
        ],
    )
    peak = run["sgemm_gflops"]["median"]
    yield Page(
        "Step graph alone, samples per CPU-second",
        ("", "Median", "Least to most", f"Share of sgemm ({peak:.0f} GFLOP/s)", "Least to most"),
        [
            (one["name"], *_spread(one["samples_per_cpu_second"]), *_spread(one["peak_share"]))
            for one in run["graph"]
        ],
    )


def _agent(run: Figures) -> Iterator[Page]:
    yield Page(
        "Over Mosquitto, samples per CPU-second of the process",
        ("", "Median", "Least to most", "Ratio", "Least to most", "Peak MB"),
        [
            (
                one["name"],
                *_spread(one["samples_per_cpu_second"]),
                *_spread(one["ratio"]),
                f"{one['peak_megabytes']:.0f}",
            )
            for one in run["throughput"]
        ],
    )
    rows = [(name, *_spread(run["start"][key])) for key, name in _LIFE.items()]
    rows.append(("idle, connected, % of a core", number(run["idle"]["core_percent"]), ""))
    rows += [
        (f"{one['name']}, {one['pace']:g} samples a second, % of a core", number(one["core_percent"]), "")
        for one in run["slow"]
    ]
    yield Page("The daemon's life", ("", "Median", "Least to most"), rows)
    yield Page(
        "Workers, samples a second of a backlog",
        ("", "By the clock", "Least to most", "A CPU-second", "Of the busiest process", "Least to most"),
        [
            (
                f"workers = {one['workers']}",
                *_spread(one["samples_per_second"]),
                number(one["samples_per_cpu_second"]["median"]),
                *_spread(one["samples_per_busiest_second"]),
            )
            # Runs that were kept from before have none.
            for one in run.get("workers", ())
        ],
    )


def _latency(run: Figures) -> Iterator[Page]:
    names = {"default": "default settings", "linger": "linger_milliseconds = 5"}
    rows = []
    for way in run["ways"]:
        for key, title in (
            ("publish_to_score", "publish to score"),
            ("publish_to_alarm", "publish to alarm"),
        ):
            figures = [number(way[f"{key}_{mark}_ms"]) for mark in ("p50", "p99", "p999")]
            medians = way["spread"][f"{key}_p50_ms"]
            rows.append(
                (
                    f"{names[way['key']]}: {title}",
                    *figures,
                    f"{number(medians['least'])} to {number(medians['most'])}",
                    number(way["core_percent"]["median"]),
                )
            )
    title = f"At {run['pace']:g} messages a second from {run['assets']} assets, QoS 1, ms"
    yield Page(title, ("", "p50", "p99", "p99.9", "p50 of the rounds", "% of a core"), rows)


def _memory(run: Figures) -> Iterator[Page]:
    rows = [("start", number(run["resident_megabytes"]), "")]
    rows += [
        (
            f"{one['assets']:,} assets".replace(",", " "),
            number(one["resident_megabytes"]),
            number(one["peak_megabytes"]),
        )
        for one in run["assets"]
    ]
    yield Page("Memory of the daemon, MB", ("", "Resident", "Peak"), rows)


def _scaling(run: Figures) -> Iterator[Page]:
    yield Page(
        "The detector alone, CPU µs a sample",
        ("", "Median", "Least to most", "Against", "Ratio", "Least to most"),
        [
            (one["name"], *_spread(one["microseconds_per_sample"]), one["against"], *_spread(one["ratio"]))
            for one in run["cases"]
        ],
    )


def _training(run: Figures) -> Iterator[Page]:
    columns = (
        "",
        "CPU-s",
        "Wall, s",
        "Windows shown",
        "Speed, CPU",
        "An epoch, CPU-s",
        "of windows",
        "Best RMSE",
    )
    shown = ("cpu_seconds", "wall_seconds", "windows", "speed")
    yield _trained("Training", run, columns, shown, ("cpu_seconds", "windows"))
    yield _training_memory(run)


def _training_on_gpu(run: Figures) -> Iterator[Page]:
    columns = (
        "", "Wall, s", "CPU-s", "Windows shown", "Speed, wall", "An epoch, s", "of windows", "GPU busy, %", "Best RMSE",
    )  # fmt: skip
    shown = ("wall_seconds", "cpu_seconds", "windows", "wall_speed")
    yield _trained(
        f"Training on {run['gpu']}", run, columns, shown, ("wall_seconds", "windows", "gpu_percent")
    )
    yield _training_memory(run)


def _trained(
    title: str, run: Figures, columns: tuple[str, ...], shown: tuple[str, ...], of_epoch: tuple[str, ...]
) -> Page:
    """Return how fast each contender was: medians over the rounds, and what the epochs were like."""
    rows = []
    for one in run["contenders"]:
        if "rounds" not in one:
            rows.append((one["name"], *[""] * (len(columns) - 1)))
            continue
        epoch = {"gpu_percent": one.get("gpu_percent")} | (one["epoch"] or {})
        told = [epoch.get(key) for key in of_epoch]
        rows.append(
            (
                one["name"],
                *(number(one[key]["median"]) for key in shown),
                *("" if value is None else number(value) for value in told),
                number(one["best_rmse"]["median"]),
            )
        )
    targets = ", ".join(number(target) for target in run["target_rmse"])
    references = f"persistence {number(run['persistence'])}, ridge {number(run['ridge'])}"
    return Page(f"{title} to an RMSE of {targets} ({references})", columns, rows)


def _training_memory(run: Figures) -> Page:
    sizes = ["start_megabytes", "peak_megabytes"]
    columns = ["", "Before training", f"Peak, {_rows(run['samples'])}"]
    if run["long_samples"]:
        sizes.append("long_peak_megabytes")
        columns.append(f"Peak, {_rows(run['long_samples'])}")
    return Page(
        "Memory of the training, MB",
        tuple(columns),
        [
            (one["name"], *(number(one[size]) for size in sizes))
            for one in run["contenders"]
            if "rounds" in one
        ],
    )


def _rows(count: int) -> str:
    return f"{count:,} samples".replace(",", " ")


def _spread(value: dict[str, float]) -> tuple[str, str]:
    return number(value["median"]), f"{number(value['least'])} to {number(value['most'])}"


def number(value: float) -> str:
    """Return three significant digits, thousands apart."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}".replace(",", " ") if abs(rounded) >= 100 else f"{rounded:.3g}"
