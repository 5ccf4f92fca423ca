"""One self-contained page of HTML on a bundle and what it makes of a history (the one user of Jinja).

Figures are SVG in `data:` addresses, so that nothing is fetched; the page's own policy forbids it. Each has a text that
says what it shows.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.types import AlarmEvent
from trainer.canvas import svg_of
from trainer.cleaning import Cleaned
from trainer.evaluate import Evaluation
from trainer.plot_data import liveliest_row, stretch_around, worst_sensors
from trainer.report_figures import (
    attribution_figure,
    crossval_figure,
    forecast_figure,
    learning_figure,
    residual_figure,
    score_figure,
    sensors_figure,
    sources_figure,
    tail_figure,
)

MOST_ASSETS = 6
MOST_ALARMS = 50
_DETECTION = (
    ("event_recall", "share of the labelled events with an alarm"),
    ("event_precision", "share of the alarms within a labelled event"),
    ("false_alarms_per_week", "false alarms a week and asset"),
    ("median_delay_seconds", "median delay, seconds"),
    ("f1", "F1 by row"),
    ("all_positive_f1", "F1 of an alarm that is always on"),
    ("roc_auc", "area under the ROC curve"),
    ("average_precision", "average precision"),
    ("vus_pr", "volume under the PR surface"),
)


@dataclass(frozen=True)
class Picture:
    """A figure on the page.

    Attributes:
        source: `data:` address.
        text: what it shows, for those who cannot see it.
        caption: below it.
    """

    source: str
    text: str
    caption: str


@dataclass(frozen=True)
class Findings:
    """What a report is on.

    Attributes:
        bundle: the model.
        cleaned: the history.
        evaluation: what the bundle makes of it.
        figures: of the evaluation, under the keys of `trainer evaluate`.
        source: of the history, for people.
        notices: of reading and cleaning.
        crossval, explained: records that `trainer crossval` and `trainer explain` print, None where not given.
    """

    bundle: Bundle
    cleaned: Cleaned
    evaluation: Evaluation
    figures: Mapping[str, Any]
    source: str
    notices: Sequence[str] = ()
    crossval: Mapping[str, Any] | None = None
    explained: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def build_report(findings: Findings) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "moment": moment}
    found, manifest = findings.evaluation, findings.bundle.manifest
    return environment.get_template("report.html").render(
        manifest=manifest,
        sha256=findings.bundle.sha256,
        source=findings.source,
        assets=found.assets,
        figures=findings.figures,
        first_time=float(found.time.min()) if len(found.time) else None,
        last_time=float(found.time.max()) if len(found.time) else None,
        quality=_quality(findings),
        repairs=findings.cleaned.repairs,
        notices=findings.notices,
        learning=_learning(findings),
        sensors=_sensors(findings),
        tail=_tail(findings),
        scores=_scores(findings),
        alarms=_alarms(found)[:MOST_ALARMS],
        alarm_count=len(_alarms(found)),
        detection=None
        if found.labels is None
        else [(text, findings.figures[key]) for key, text in _DETECTION],
        crossval=findings.crossval,
        crossval_picture=_crossval(findings),
        explained=[_explained(one) for one in findings.explained],
        files=_files(findings.bundle),
    )


def number(value: float | None) -> str:
    """Return a number in four digits, a dash for none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.4g}"


def percent(value: float | None) -> str:
    """Return a ratio in percent."""
    return "–" if value is None or not np.isfinite(value) else f"{100.0 * value:.3g} %"


def moment(time: float | None) -> str:
    """Return a time in seconds since the epoch as a person reads it."""
    return "–" if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _picture(figure: Any, text: str, caption: str) -> Picture:
    encoded = base64.b64encode(svg_of(figure)).decode("ascii")
    return Picture(f"data:image/svg+xml;base64,{encoded}", text, caption)


def _quality(findings: Findings) -> list[dict[str, Any]]:
    """Return what was read of each sensor, beside what was seen in training."""
    found, rows = findings.evaluation, []
    for place, spec in enumerate(findings.bundle.manifest.sensors):
        values = found.values[:, place].astype(np.float64)
        known = np.isfinite(values)
        outside = (values[known] < spec.minimum) | (values[known] > spec.maximum)
        rows.append(
            {
                "name": spec.name,
                "unit": spec.unit,
                "constant": spec.constant,
                "trained": (spec.minimum, spec.maximum),
                "read": (float(values[known].min()), float(values[known].max())) if known.any() else None,
                "missing": float(1.0 - known.mean()) if len(known) else None,
                "outside": float(outside.mean()) if known.any() else None,
            }
        )
    return rows


def _learning(findings: Findings) -> Picture | None:
    record = findings.bundle.manifest.trained.get("training")
    if not record or not record.get("losses"):
        return None
    best, later = record["best_epoch"], record["stop_losses"]
    kept = f"epoch {best} was kept" if best else "the linear part alone was kept"
    text = (
        f"Loss on the training block and on a later block over {record['epochs']} epochs; {kept}, "
        f"with a loss of {later[best]:.4g} on the later block against {later[0]:.4g} before training."
    )
    return _picture(learning_figure(record), text, f"{kept.capitalize()}.")


def _sensors(findings: Findings) -> list[dict[str, Any]]:
    """Return forecast and residuals of each sensor, or of those that are forecast worst."""
    found, manifest = findings.evaluation, findings.bundle.manifest
    rows = stretch_around(found, liveliest_row(found, manifest))
    skill = {one["name"]: one for one in findings.figures["sensors"]}
    parts = []
    for sensor in worst_sensors(found, manifest) if len(rows) else []:
        spec, known = manifest.sensors[sensor], skill[manifest.sensors[sensor].name]
        unit = f" {spec.unit}" if spec.unit else ""
        figures = f"RMSE {number(known['rmse'])}{unit}, persistence {number(known['persistence_rmse'])}{unit}"
        parts.append(
            {
                "name": spec.name,
                "forecast": _picture(
                    forecast_figure(found, manifest, sensor, rows),
                    f"{spec.name}: actual and forecast readings over {len(rows)} samples, residual below; {figures}.",
                    f"Actual (dark), forecast one tick ahead (orange), residual (blue). {figures}.",
                ),
                "residual": _picture(
                    residual_figure(found, manifest, sensor),
                    f"{spec.name}: distribution of the residuals beside a normal distribution; {figures}.",
                    "Residuals (blue) and a normal distribution of the same middle half (dashed)."
                    + ("" if found.labels is None else " Red: those of labelled rows."),
                ),
            }
        )
    return parts


def _tail(findings: Findings) -> Picture:
    limits = findings.bundle.manifest.threshold
    basis = "a tail fitted to rare excursions" if limits.basis == "tail" else "a margin over normal operation"
    text = (
        f"How often the fused statistic exceeds a level, a week; the threshold is {limits.value:.3g}, "
        f"from {basis}, for a budget of {limits.alarms_per_week:g} alarms a week."
    )
    separation = max(findings.bundle.scoring.spans)
    return _picture(tail_figure(findings.evaluation, findings.bundle.manifest, separation), text, text)


def _scores(findings: Findings) -> list[tuple[str, Picture]]:
    """Return the scores of the assets that stand highest."""
    found = findings.evaluation
    peaks = [
        float(np.nanmax(np.append(found.score[found.asset == place], -1.0)))
        for place in range(len(found.assets))
    ]
    alarms = _alarms(found)
    pictures = []
    for place in sorted(np.argsort(peaks, kind="stable")[::-1][:MOST_ASSETS].tolist()):
        name = found.assets[place]
        count = sum(alarm["asset"] == name for alarm in alarms)
        text = (
            f"Score of {name} over time; 1 is the threshold. The highest is {number(max(peaks[place], 0.0))}, "
            f"with {count} alarm{'' if count == 1 else 's'}."
        )
        pictures.append((name, _picture(score_figure(found, place), text, text)))
    return pictures


def _alarms(found: Evaluation) -> list[dict[str, Any]]:
    """Return the alarms in order of their start."""
    alarms: dict[tuple[int, int], dict[str, Any]] = {}
    for event in found.events:
        key = event.asset, event.alarm_number
        if event.kind == "start":
            alarms[key] = _alarm(event, found.assets[event.asset])
        if key in alarms:
            alarms[key] |= {
                "end": event.time if event.kind == "end" else None,
                "peak": event.peak_score,
                "severity": event.severity,
            }
    return list(alarms.values())


def _alarm(event: AlarmEvent, asset: str) -> dict[str, Any]:
    named = ", ".join(f"{one.name} {one.share:.0%}" for one in event.sensors[:3])
    return {"asset": asset, "start": event.start_time, "sensors": named}


def _crossval(findings: Findings) -> Picture | None:
    record = findings.crossval
    if record is None:
        return None
    return _picture(
        crossval_figure(dict(record)),
        f"RMSE of each contender by fold. {record['verdict']}",
        str(record["verdict"]),
    )


def _explained(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return one explained sample: its sources, its sensors and, where attributed, its forecasts."""
    where = f"{record['asset']} at {moment(record['time'])}"
    top = record["sensors"][0]
    pictures = [
        _picture(
            sources_figure(dict(record)),
            f"What each source adds to the logarithm of the statistic of {where}.",
            "By source and span. They sum to the logarithm of the statistic.",
        ),
        _picture(
            sensors_figure(dict(record)),
            f"What each sensor adds to the logarithm of the statistic of {where}; most is {top['name']}'s.",
            "By sensor.",
        ),
    ]
    for forecast in record["forecasts"]:
        for method, name in (("integrated_gradients", "Integrated gradients"), ("shap", "SHAP")):
            if forecast["cells"] and forecast["cells"][0][method] is not None:
                text = f"{name}: which readings made the forecast of {forecast['sensor']}, by input and lag."
                pictures.append(_picture(attribution_figure(dict(forecast), method), text, text))
    return {"where": where, "score": record["score"], "sensors": record["sensors"], "pictures": pictures}


def _files(bundle: Bundle) -> list[tuple[str, int, str]]:
    """Return name, size and hash of the bundle's files."""
    return [
        (name, (bundle.directory / name).stat().st_size, sha256)
        for name, sha256 in sorted(bundle.manifest.files.items())
    ]
