"""The figures as tables for a person."""

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

Figures = dict[str, Any]


def tables(figures: Figures) -> Iterator[Table]:
    """Yield the tables of all that was measured, the machine first."""
    yield _machine(figures["machine"])
    if "kernel" in figures:
        yield _scoring(figures["kernel"])
        yield _graph(figures["kernel"])
    if "agent" in figures:
        yield _throughput(figures["agent"])
        yield _life(figures["agent"])


def _machine(facts: Figures) -> Table:
    table = Table(title="Machine", title_justify="left", show_header=False, box=box.SIMPLE)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), f"{value:.2f}" if isinstance(value, float) else str(value))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _scoring(kernel: Figures) -> Table:
    title = f"Scoring, samples per CPU-second, one thread; rounds: {kernel['rounds']}"
    table = _table(title, "", "median", "least to most", "ratio")
    for one in kernel["scoring"]:
        rate = one["samples_per_cpu_second"]
        table.add_row(one["name"], _count(rate["median"]), _range(rate), f"{one['ratio']:.3g} ×")
    return table


def _graph(kernel: Figures) -> Table:
    peak = kernel["sgemm_gflops"]
    title = f"Step graph alone; float32 sgemm reaches {peak['median']:.0f} GFLOP/s on one core"
    table = _table(title, "", "median", "least to most", "share of sgemm")
    for one in kernel["graph"]:
        rate = one["samples_per_cpu_second"]
        table.add_row(one["name"], _count(rate["median"]), _range(rate), f"{one['peak_share']:.0%}")
    return table


def _throughput(agent: Figures) -> Table:
    title = f"Over Mosquitto, samples per CPU-second of the process; rounds: {agent['rounds']}"
    table = _table(title, "", "median", "least to most", "peak MB", "ratio")
    for one in agent["throughput"]:
        table.add_row(one["name"])
        for who, against in (("script", 1.0), ("daemon", one["ratio"])):
            rate, peak = one[who]["samples_per_cpu_second"], one[who]["peak_megabytes"]
            table.add_row(f"  {who}", _count(rate["median"]), _range(rate), f"{peak:.0f}", f"{against:.3g} ×")
    return table


def _life(agent: Figures) -> Table:
    table = _table("The daemon's start and idling", "", "median", "least to most")
    start, idle = agent["start"], agent["idle"]
    names = {
        "wall_seconds": "start until ready, s",
        "cpu_seconds": "start until ready, CPU-s",
        "import_wall_seconds": "of which imports, s",
        "import_cpu_seconds": "of which imports, CPU-s",
    }
    for key, name in names.items():
        value = start[key]
        table.add_row(name, f"{value['median']:.2f}", f"{value['least']:.2f} to {value['most']:.2f}")
    table.add_row("idle, connected, % of a core", f"{idle['core_percent']:.2f}", "")
    table.add_row("idle, peak MB", f"{idle['peak_megabytes']:.0f}", "")
    return table


def _count(value: float) -> str:
    """Return three significant digits, thousands apart."""
    return f"{float(f'{value:.3g}'):,.0f}".replace(",", " ")


def _range(value: dict[str, float]) -> str:
    return f"{_count(value['least'])} to {_count(value['most'])}"
