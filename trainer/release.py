"""What every released bundle is finished with, however it was calibrated; nothing here needs a training library."""

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.grid import Axis
from edge_agent.contract.types import Bool, Float32, Float64, Samples
from edge_agent.detector import golden_samples, open_detector
from trainer.cleaning import Cleaned

WEIGHTS = "weights.npz"
"""Of a bundle: the forecaster's weights, for `trainer explain`; the agent reads graphs only."""
GOLDEN_SCORED = 32
MODES = ("step", "window")


def golden_values(samples: Samples, statistic: Float64, held_out: Bool, warmup_ticks: int) -> Float32:
    """Return (n, F) rows of the first asset for a warm-up and some scored samples; the last loses a cell.

    Args:
        samples: the calibration history.
        statistic: (n,) NaN where a sample has no score.
        held_out: (n,) its calibration block.
        warmup_ticks: of the bundle.
    """
    rows = np.flatnonzero(held_out & (samples.asset == samples.asset[0]))
    count = warmup_ticks + GOLDEN_SCORED
    # A machine may be off in the first rows: take those after which most are scored.
    scored = np.cumsum(np.r_[0, np.isfinite(statistic[rows])])
    starts = np.arange(max(len(rows) - count, 0) + 1)
    ends = np.minimum(starts + count, len(rows))
    first = int(np.argmax(scored[ends] - scored[np.minimum(starts + warmup_ticks, ends)]))
    values = samples.values[rows[first : first + count]].copy()
    values[-1, 0] = np.nan
    return values


def golden_arrays(bundle: Bundle, values: Float32) -> dict[str, Any]:
    """Return what the bundle makes of golden values (n, F), in each mode whose graph stands in its directory."""
    golden: dict[str, Any] = {"values": values}
    for mode in MODES:
        if (bundle.directory / f"{mode}.onnx").is_file():
            outcomes = open_detector(bundle, mode).process(golden_samples(values))
            golden |= {f"{mode}_forecast": outcomes.forecast, f"{mode}_statistic": outcomes.statistic}
    return golden


def history_facts(cleaned: Cleaned) -> dict[str, Any]:
    """Return first and last time (seconds since the epoch), samples and fingerprint of a history."""
    ticks = [series.ticks for series in cleaned.series]
    axis = Axis(cleaned.interval, cleaned.phase)
    fingerprint = hashlib.sha256()
    for series in cleaned.series:
        fingerprint.update(np.ascontiguousarray(series.values).data)
    return {
        "first_time": float(axis.time_of(min(part[0] for part in ticks))),
        "last_time": float(axis.time_of(max(part[-1] for part in ticks))),
        "samples": sum(len(part) for part in ticks),
        "data_sha256": fingerprint.hexdigest(),
    }


def next_version(version: str) -> str:
    """Return the version with its last number raised, or with `.1` where it ends in none."""
    found = re.search(r"\d+$", version)
    return f"{version}.1" if found is None else f"{version[: found.start()]}{int(found.group()) + 1}"


def put_in_place(draft: Path, out: Path) -> None:
    """Put the finished draft in place; the old bundle goes only when the new one stands."""
    draft.chmod(0o755)
    old = draft.with_name(f"{draft.name}.old")
    try:
        if out.exists():
            out.rename(old)
        draft.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
