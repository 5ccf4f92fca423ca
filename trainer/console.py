"""What a person sees: notices, progress bars and tables; with `--json`, nothing on standard output."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import rich.console
import rich.progress
import rich.table

from trainer.cleaning import Cleaned
from trainer.confidence import rate_interval, supported_budgets
from trainer.progress import Progress

if TYPE_CHECKING:
    # Fitting imports TensorFlow, which takes ten seconds that other commands need not wait.
    from trainer.fit import FitReport

PAGE_WIDTH = 120
"""Of tables that are not shown on a terminal."""


class Console(Progress):
    """Writes for a person.

    Args:
        as_json: keep standard output free.
    """

    def __init__(self, as_json: bool) -> None:
        self._out = rich.console.Console(stderr=as_json, highlight=False, soft_wrap=True)
        self._quiet = as_json
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
            console=rich.console.Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task: rich.progress.TaskID | None = None

    def __enter__(self) -> "Console":
        """Begin to show progress."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        self._bar.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a bar."""
        self._finish()
        self._task = self._bar.add_task(name, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move the bar on."""
        if self._task is not None:
            self._bar.update(self._task, advance=steps, note=note)

    def say(self, text: str) -> None:
        """Print a line, unless the output is JSON."""
        if not self._quiet:
            self._out.print(text, markup=False)

    def note(self, text: str) -> None:
        """Print what the user should know on standard error."""
        print(f"note: {text}", file=sys.stderr)

    def fit_table(self, cleaned: Cleaned, report: "FitReport", out: Path) -> None:
        """Show what fitting found."""
        self._finish()
        manifest, skill = report.bundle.manifest, report.skill
        span = (manifest.trained["last_time"] - manifest.trained["first_time"]) / 3600
        rows = [
            ("rows read", f"{cleaned.rows} ({span:.1f} h, every {cleaned.interval:g} s)"),
            *((f"repaired: {kind}", str(count)) for kind, count in cleaned.repairs.items() if count),
            ("sensors", f"{len(cleaned.sensors)}" + _constant(cleaned)),
            ("epochs", f"{report.epochs}, kept {report.best_epoch or 'the ridge regression alone'}"),
            (
                "RMSE on later rows",
                f"{_number(skill['rmse'])} (persistence {_number(skill['persistence_rmse'])})",
            ),
            ("MAE on later rows", _number(skill["mae"])),
            *(
                (name, f"{_bytes(manifest.sizes[name])}, within {deviation:.1e} of the trained model")
                for name, deviation in manifest.parity.items()
            ),
            ("threshold", _threshold(report)),
            ("confidence", str(rate_interval(manifest.threshold))),
            *(
                [("left out of calibration", f"{trimmed} rows that stand apart from the rest")]
                if (trimmed := manifest.trained["trimmed_samples"])
                else []
            ),
            ("bundle", str(out)),
        ]
        self._table(rows)

    def figures_table(self, figures: dict[str, Any]) -> None:
        """Show the figures of an evaluation."""
        self._finish()
        self._table([(key, _number(value)) for key, value in figures.items() if not isinstance(value, list)])

    def pictures(self, paths: Sequence[Path]) -> None:
        """Say which pictures were drawn."""
        self.say(f"{paths[0].parent}: {', '.join(path.name for path in paths)}")

    def grid(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table with a header, whose words are folded to keep the numbers whole."""
        self._finish()
        if self._quiet:
            return
        table = rich.table.Table(box=None, pad_edge=False)
        for place, name in enumerate(header):
            width = max(map(len, [*name.split(), *(row[place] for row in rows)]))
            table.add_column(name, justify="right" if place else "left", min_width=width, overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._out.print(table, width=None if self._out.is_terminal else PAGE_WIDTH)

    def _table(self, rows: list[tuple[str, str]]) -> None:
        if self._quiet:
            return
        table = rich.table.Table(show_header=False, box=None)
        for row in rows:
            table.add_row(*row)
        self._out.print(table)

    def _finish(self) -> None:
        if self._task is not None:
            total = self._bar.tasks[self._task].total
            self._bar.update(self._task, completed=total)


def _constant(cleaned: Cleaned) -> str:
    if not cleaned.constant:
        return ""
    return f", {len(cleaned.constant)} of them constant (only range-guarded): {', '.join(cleaned.constant)}"


def _threshold(report: "FitReport") -> str:
    limits = report.bundle.manifest.threshold
    claim = (
        f": {limits.alarms_per_week:g} false alarms per week and asset; "
        if limits.basis == "tail"
        else ", a margin over normal operation: "
    )
    return f"{limits.value:.3g} of the fused statistic{claim}{supported_budgets(limits)}"


def _bytes(count: int) -> str:
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
