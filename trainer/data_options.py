"""What the command line of `trainer fit` says of cells and inputs: scaling, missing values, commands, calendar."""

import argparse

from edge_agent.contract.calendar_inputs import CALENDAR
from edge_agent.contract.scaling import METHODS
from trainer.dataset import FILLINGS

DATA_FLAGS = {
    "scaling": "--scaling",
    "missing": "--missing",
    "fill_limit": "--fill-limit",
    "exogenous": "--exogenous",
    "calendar": "--calendar",
    "time_zone": "--time-zone",
}
"""The flag of each field of `FitOptions`."""


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options whose flags `DATA_FLAGS` names."""
    group = parser.add_argument_group("inputs", "What the forecaster reads.")
    group.add_argument("--scaling", choices=METHODS, help="of the sensors (default standard)")
    group.add_argument(
        "--missing",
        choices=FILLINGS,
        help="what the forecaster is told of missing cells while it is fitted (default mask)",
    )
    group.add_argument(
        "--fill-limit", type=int, metavar="N", help="cells of a gap that are filled at most (default 5)"
    )
    group.add_argument(
        "--exogenous",
        nargs="+",
        metavar="NAME",
        help="commands and set points: read, not forecast, not scored",
    )
    group.add_argument(
        "--calendar", nargs="+", choices=tuple(CALENDAR), help="time of day, day of week as inputs"
    )
    group.add_argument("--time-zone", metavar="ZONE", help="of the calendar, as Europe/Berlin (default UTC)")
