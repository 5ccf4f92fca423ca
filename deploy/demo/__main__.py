"""Run the demonstration: `python -m deploy.demo`, or `make demo`."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from deploy.demo.plan import FAST, FULL, Plan
from deploy.demo.processes import Children
from deploy.demo.show import Show
from edge_agent.contract.errors import ForewarnError


def perform(plan: Plan, once: bool) -> int:
    """Play the plan in a directory of its own, which is removed at the end; returns the exit code.

    Raises:
        ForewarnError: a part failed, or the alarm did not come.
        KeyboardInterrupt: Ctrl-C before the alarm.
    """
    print("A simulated pump: its history is learned, its readings go over MQTT, a fault raises an alarm.")
    with (
        tempfile.TemporaryDirectory(prefix="forewarn-demo-") as place,
        Children(Path(place)) as children,
    ):
        Show(plan, Path(place), children).play(once)
    print("\nStopped, and the work directory is removed.")
    return 0


def _terminated(_number: int, _frame: FrameType | None) -> None:
    # As Ctrl-C, so that the children are ended on the way out.
    raise KeyboardInterrupt


def main() -> int:
    """Run the demonstration from the command line; returns the exit code, 0 only if the alarm came."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the alarm; 0 only if it came")
    parser.add_argument("--fast", action="store_true", help="less history and one epoch")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    try:
        return perform(FAST if options.fast else FULL, options.once)
    except ForewarnError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("demo: interrupted before the alarm", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
