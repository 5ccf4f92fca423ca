"""The command `trainer simulate`."""

import argparse
from pathlib import Path
from typing import Any

from trainer.console import Console


def add_simulate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="CSV")
    parser.add_argument("--hours", type=float, default=8.0, help="default 8")
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="default 1")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--start", type=float, metavar="EPOCH", help="seconds since 1970")
    parser.add_argument("--asset", metavar="ID", help="adds a column of assets")
    parser.add_argument("--faults", default="", help="KIND[/SENSOR]@START+DURATION[:SEVERITY],… in seconds")


def simulate_command(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Simulate, write the file and return what it holds.

    Raises:
        UsageError: an option is out of range.
        HistoryError: the file cannot be written.
    """
    from trainer.simulate import DEFAULT_START, parse_faults, simulate, write_simulation

    faults = parse_faults(options.faults) if options.faults else []
    start = DEFAULT_START if options.start is None else options.start
    simulation = simulate(options.hours, options.seed, options.interval, faults, start)
    write_simulation(simulation, options.out, options.asset)
    rows = len(simulation.time)
    console.say(f"{options.out}: {rows} rows of {len(simulation.sensors)} sensors, {len(faults)} faults")
    return {
        "out": str(options.out),
        "rows": rows,
        "sensors": list(simulation.sensors),
        "faults": len(faults),
        "labelled_rows": int(simulation.label.sum()),
    }
