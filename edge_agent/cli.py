"""The command line of the edge agent."""

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge_agent.bench.command import add_bench
from edge_agent.contract.errors import ForewarnError, UsageError
from edge_agent.feedback_cli import add_feedback
from edge_agent.history_options import add_history_options, history_format
from edge_agent.version import VERSION

if TYPE_CHECKING:
    from edge_agent.alarm_desk import AlarmDesk
    from edge_agent.detector import Detector

_EPILOG = """examples:
  edge-agent check --config edge-agent.toml
  edge-agent run --config edge-agent.toml
  edge-agent replay --bundle bundle --history yesterday.csv
  edge-agent bench --bundle bundle
  edge-agent record --config edge-agent.toml --out history
  edge-agent feedback mute --config edge-agent.toml --asset pump-1 --for 2h
"""


_EXTRAS = {"polars": "history"}
"""Which extra brings a package that a command needs and the daemon does without."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (failed), 2 (usage) or 78 (configuration)."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except ForewarnError as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as missing:
        if missing.name not in _EXTRAS:
            raise
        extra = _EXTRAS[missing.name]
        print(
            f"edge-agent: {missing.name} is not installed: pip install 'forewarn[{extra}]'", file=sys.stderr
        )
        return UsageError.exit_code
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; that is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"edge-agent: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    return code


class OneLineParser(argparse.ArgumentParser):
    """Says a usage error in one line; the usage itself is what `--help` is for."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="edge-agent",
        description="Readings in over MQTT, alarm events out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"forewarn {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _command(commands, "run", "Run the daemon.", "edge-agent run --config edge-agent.toml", _run)
    run.add_argument("--config", type=Path, required=True, metavar="TOML")
    check = _command(
        commands,
        "check",
        "Say what would go wrong, before it does: configuration, bundle, broker, clock.",
        "edge-agent check --config edge-agent.toml",
        _check,
    )
    check.add_argument("--config", type=Path, required=True, metavar="TOML")
    replay = _command(
        commands,
        "replay",
        "Run a file through the live code and print the alarms it would have raised.",
        "edge-agent replay --bundle bundle --history yesterday.csv --json",
        _replay,
    )
    _add_replay(replay)
    recorder = _command(
        commands,
        "record",
        "Write MQTT readings to Parquet files, the history that `trainer fit` reads.",
        "edge-agent record --config edge-agent.toml --out history",
        _record,
    )
    recorder.add_argument("--config", type=Path, required=True, metavar="TOML", help="needs no [bundle]")
    recorder.add_argument("--out", type=Path, required=True, metavar="DIR")
    recorder.add_argument("--minutes", type=float, default=10.0, metavar="N", help="of a file (default 10)")
    recorder.add_argument("--rows", type=int, default=100_000, metavar="N", help="of a file (default 100000)")
    add_feedback(commands)
    add_bench(commands)
    return parser


def _command(commands: Any, name: str, about: str, example: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--inference", choices=("step", "window"), help="default: as calibrated")
    parser.add_argument("--provider", choices=("cpu", "cuda", "auto"), default="cpu", help="default cpu")
    parser.add_argument(
        "--feedback",
        type=Path,
        metavar="PATH",
        help="suppress what operators marked: feedback.json, or the directory that is kept in",
    )
    parser.add_argument("--lateness-ticks", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_history_options(parser)


def _run(options: argparse.Namespace) -> int:
    # Other packages' plugins have no business in the daemon, and its matrices are too small for threads that spin.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What is imported stays: looking through it for garbage is a tenth of the start, and later a pause now and then.
    gc.disable()
    from edge_agent.agent import run
    from edge_agent.settings import load_settings

    gc.freeze()
    gc.enable()
    return run(load_settings(options.config))


def _record(options: argparse.Namespace) -> int:
    # The writer of history files comes with the extra `history`, which the daemon itself does without.
    from edge_agent.record import RecordOptions, record
    from edge_agent.settings import load_settings

    if not 0 < options.minutes < 1e6:
        raise UsageError(f"--minutes: is {options.minutes:g}, must be above 0 and below a million")
    if options.rows < 1:
        raise UsageError(f"--rows: is {options.rows}, at least 1 is needed")
    settings = load_settings(options.config, bundle_needed=False)
    return record(settings, RecordOptions(options.out, options.minutes, options.rows))


def _check(options: argparse.Namespace) -> int:
    from edge_agent.check import check
    from edge_agent.settings import load_settings

    return check(load_settings(options.config))


def _replay(options: argparse.Namespace) -> int:
    # The reader of history files comes with the extra `history`, which the daemon itself does without.
    from edge_agent.detector import load_detector
    from edge_agent.history import read_history, sensor_notices
    from edge_agent.pipeline import Pipeline
    from edge_agent.replay import replay

    if options.lateness_ticks < 0:
        raise UsageError(f"--lateness-ticks: is {options.lateness_ticks}, at least 0 is needed")
    detector = load_detector(options.bundle, options.inference, options.provider)
    desk = None if options.feedback is None else _desk(options.feedback, detector)
    history = read_history(options.history, history_format(options))
    pipeline = Pipeline(detector, options.lateness_ticks)
    _note(*history.notices, *sensor_notices(history.source, history.sensors, pipeline.sensors))
    result = replay(pipeline, history, _progress(len(history.time)), desk)
    if not result.scored:
        warmup = detector.bundle.manifest.warmup_ticks
        _note(f"{history.source}: no sample was scored, a score needs {warmup} samples before it")
    events = [alarm.record() for alarm in result.alarms]
    held_back = detector.held_back
    quality = [found.record() for found in result.quality]
    rejected = {**history.repairs, **pipeline.rejected}
    if options.json:
        print(
            json.dumps(
                {
                    "events": events,
                    "suppressed": [one.record() for one in result.suppressed],
                    "data_quality": quality,
                    "retrain_advised": result.advice,
                    "data_quality_counts": pipeline.quality,
                    "alarms_held_back": dict(held_back),
                    "samples": result.samples,
                    "scored": result.scored,
                    "rejected": rejected,
                    "provider": detector.forecaster.provider,
                },
                allow_nan=False,
            )
        )
        return 0
    counted = ", ".join(f"{count} × {reason}" for reason, count in rejected.items() if count)
    if counted:
        _note(f"{history.source}: not used: {counted}")
    for found in quality:
        print(_quality_line(found))
    for event in events:
        print(_line(event))
    for advice in result.advice:
        named = ", ".join(f"{one['measure']} of {one['name']}" for one in advice["sensors"])
        print(f"{advice['time']} {advice['asset']} retrain advised, drift {advice['drift']:.1f}: {named}")
    for one in result.suppressed:
        print(_suppressed_line(one.record()))
    print(f"{len(events)} alarms in {result.samples} samples, {result.scored} of them scored")
    if held_back.total():
        print(
            f"held back: {', '.join(f'{count} × {reason}' for reason, count in held_back.items() if count)}"
        )
    return 0


def _desk(path: Path, detector: "Detector") -> "AlarmDesk":
    from edge_agent.alarm_desk import AlarmDesk
    from edge_agent.feedback import Feedback
    from edge_agent.feedback_file import read_feedback
    from edge_agent.feedback_shares import read_shares

    try:
        state = read_shares(path) if path.is_dir() else read_feedback(path)
    except ValueError as error:
        raise UsageError(f"--feedback: {error}") from error
    bundle = detector.bundle
    return AlarmDesk(Feedback(state), bundle.manifest.sensor_names, bundle.sha256)


def _note(*notices: str) -> None:
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr)


def _line(event: dict[str, Any]) -> str:
    sensors = "; ".join(f"{one['name']} {one['share']:.0%}: {_reading(one)}" for one in event["sensors"][:3])
    until = event["end"] or "still open"
    peak = "beyond measure" if event["peak_score"] is None else f"{event['peak_score']:.2f}"
    if event["end_reason"] not in (None, "cleared"):
        until += f" ({event['end_reason']})"
    again = f" reopened {event['reopened']} ×" if event["reopened"] else ""
    return f"{event['start']} to {until} {event['asset']} {event['severity']}{again} peak {peak}: {sensors}"


def _quality_line(found: dict[str, Any]) -> str:
    sensors = "; ".join(
        f"{one['name'] or 'the whole asset'} {one['reason']}"
        + (f" ({one['conversion']['name']})" if one["conversion"] else "")
        + f" since {one['since']}"
        for one in found["sensors"]
    )
    return f"{found['start']} to {found['end'] or 'still open'} {found['asset']} data quality: {sensors}"


def _suppressed_line(hidden: dict[str, Any]) -> str:
    until = hidden["end"] or "still open"
    return f"{hidden['start']} to {until} {hidden['asset']} suppressed: looks like {hidden['look_alike_of']}"


def _reading(one: dict[str, Any]) -> str:
    unit = f" {one['unit']}" if one["unit"] else ""
    expected = (
        f"expected {one['expected']:.4g}{unit}" if one["expected"] is not None else "expectation unknown"
    )
    if one["actual"] is None:
        return f"missing, {expected}"
    return f"{one['actual']:.4g}{unit}, {expected}, {one['trend']}"


def _progress(total: int) -> Any:
    """Return a function that shows how far a replay is, on a terminal only."""
    if not sys.stderr.isatty() or total < 20_000:
        return None
    done = 0

    def show(rows: int) -> None:
        nonlocal done
        done += rows
        ending = "\n" if done >= total else ""
        print(f"\rreplayed {done / total:5.1%} of {total} rows", end=ending, file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
