"""What a stress costs: the figures of a stressed run beside those of the clean one."""

from dataclasses import asdict
from typing import Any

from trainer.benchmark.cases import Suite
from trainer.benchmark.report import cell
from trainer.benchmark.stress import Stress

LESS_IS_BETTER = (
    "far",
    "mar",
    "far_before_event",
    "normal_in_alarm_ratio",
    "false_alarms_per_week",
    "alarms_per_week",
    "time_in_alarm_ratio",
    "budget_ratio",
)
_KEPT = ("spread", "floors")


def with_losses(
    suite: Suite, stress: Stress, stressed: dict[str, Any], clean: dict[str, Any]
) -> dict[str, Any]:
    """Return the record of the stressed run with the clean figures in it, and `loss_KEY` for each of them.

    A loss is positive where the stressed figure is worse, whichever way is better.

    Args:
        suite: the protocol.
        stress: what was done.
        stressed: the record of the stressed run, from `report`.
        clean: that of the clean one.
    """
    found = stressed | {
        "stress": asdict(stress),
        "clean": {key: clean[key] for key in (*suite.keys, *_KEPT)},
        **_losses(suite, stressed, clean),
    }
    found["floors"] = {
        name: figures | _losses(suite, figures, clean["floors"][name])
        for name, figures in stressed["floors"].items()
    }
    return found


def loss_table(suite: Suite, record: dict[str, Any], name: str) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: each figure clean, stressed, what was lost, and what each floor lost."""
    stress = ", ".join(f"{key} {value:g}" for key, value in record["stress"].items() if value)
    floors = {f"{floor} loses": figures for floor, figures in record["floors"].items()}
    rows = [
        [
            key,
            *(cell(value) for value in (record["clean"][key], record[key], record[f"loss_{key}"])),
            *(cell(figures[f"loss_{key}"]) for figures in floors.values()),
        ]
        for key in suite.keys
    ]
    return [f"benchmark {suite.name}, {stress}", f"{name} clean", "stressed", "loss", *floors], rows


def _losses(suite: Suite, stressed: dict[str, Any], clean: dict[str, Any]) -> dict[str, float | None]:
    return {f"loss_{key}": _loss(key, stressed[key], clean[key]) for key in suite.keys}


def _loss(key: str, stressed: float | None, clean: float | None) -> float | None:
    if stressed is None or clean is None:
        return None
    return stressed - clean if key.removeprefix("drifting_") in LESS_IS_BETTER else clean - stressed
