"""The commands `edge-agent feedback …`: what an operator says to the running agent, through its broker.

Only parsing happens at import, so that the daemon's command line stays quick.
"""

import argparse
import getpass
import json
import re
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.contract.errors import ConfigurationError, ForewarnError, UsageError

if TYPE_CHECKING:
    from edge_agent.feedback import FeedbackState

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EXAMPLES = {
    "mute": "edge-agent feedback mute --config edge-agent.toml --asset pump-1 --for 2h",
    "unmute": "edge-agent feedback unmute --config edge-agent.toml --asset pump-1",
    "maintenance": "edge-agent feedback maintenance --config edge-agent.toml --asset pump-1 --for 8h",
    "acknowledge": "edge-agent feedback acknowledge --config edge-agent.toml --alarm-id ID --note 'on my way'",
    "mark": "edge-agent feedback mark --config edge-agent.toml --alarm-id ID --label false_alarm",
    "accept-as-normal": "edge-agent feedback accept-as-normal --config edge-agent.toml --asset pump-1",
    "reset": "edge-agent feedback reset --config edge-agent.toml --asset pump-1",
    "list": "edge-agent feedback list --config edge-agent.toml",
    "export": "edge-agent feedback export --config edge-agent.toml --out labels.csv",
}
_ABOUT = {
    "mute": "Tell of no alarms of an asset for a time.",
    "unmute": "Tell of an asset's alarms again.",
    "maintenance": "Raise no alarms of an asset and learn nothing while it is worked on; --for 0s ends it.",
    "acknowledge": "Say that an active alarm was seen.",
    "mark": "Say what an alarm really was: false_alarm, true_fault, or none to take that back.",
    "accept-as-normal": "Take an asset's present level as normal from now on.",
    "reset": "Start everything of an asset over, as after an overhaul.",
    "list": "Show what is in force, and the alarms that can be marked.",
    "export": "Write marked alarms as labels for `trainer fit --labels`.",
}


def add_feedback(commands: Any) -> None:
    """Add `feedback` with its own commands to those of `edge-agent`."""
    feedback: argparse.ArgumentParser = commands.add_parser(
        "feedback",
        help="Say something to the running agent: mute, maintenance, acknowledge, mark.",
        description="Say something to the running agent (control.enabled), or read what was said.",
        epilog="examples:\n" + "".join(f"  {line}\n" for line in _EXAMPLES.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    said = feedback.add_subparsers(required=True, metavar="WHAT")
    for name, example in _EXAMPLES.items():
        parser: argparse.ArgumentParser = said.add_parser(
            name,
            help=_ABOUT[name],
            description=_ABOUT[name],
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--config", type=Path, required=True, metavar="TOML", help="the agent's")
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        parser.set_defaults(what=name.replace("-", "_"))
        if name == "list":
            parser.set_defaults(command=_list)
        elif name == "export":
            parser.add_argument("--out", type=Path, required=True, metavar="CSV")
            parser.set_defaults(command=_export)
        else:
            _add_request(parser, name)


def _add_request(parser: argparse.ArgumentParser, name: str) -> None:
    if name in ("acknowledge", "mark"):
        parser.add_argument("--alarm-id", required=True, metavar="ID", help="see `list`, or the event")
    else:
        parser.add_argument("--asset", required=True, metavar="ID")
    if name == "mark":
        parser.add_argument("--label", required=True, choices=("false_alarm", "true_fault", "none"))
    if name in ("mute", "maintenance"):
        length = parser.add_mutually_exclusive_group(required=True)
        length.add_argument("--for", dest="length", metavar="TIME", help="such as 90s, 30m, 8h, 2d")
        length.add_argument("--until", metavar="TIME", help="RFC 3339, or seconds since the epoch")
    parser.add_argument("--by", metavar="NAME", help="who says it (default: the user)")
    parser.add_argument("--note", metavar="TEXT")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="default 10")
    parser.set_defaults(command=_send)


def _request(options: argparse.Namespace) -> dict[str, Any]:
    length = getattr(options, "length", None)
    fields = {
        "status": "init",
        "time": time.time(),
        "by": options.by or _user(),
        "note": options.note,
        "asset": getattr(options, "asset", None),
        "alarm_id": getattr(options, "alarm_id", None),
        "label": getattr(options, "label", None),
        "seconds": None if length is None else _seconds(length),
        "until": getattr(options, "until", None),
    }
    return {key: value for key, value in fields.items() if value is not None}


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        raise UsageError(f"--for: is {text!r}, must be a number with s, m, h or d, such as 30m")
    return float(found.group(1)) * _UNITS[found.group(2)]


def _send(options: argparse.Namespace) -> int:
    from edge_agent.mqtt_errands import ask
    from edge_agent.settings import load_settings
    from edge_agent.topics import OutputTopics

    if not 0 < options.timeout <= 3600:
        raise UsageError(f"--timeout: is {options.timeout:g}, must be above 0 and at most 3600")
    request = _request(options)
    settings = load_settings(options.config)
    if not settings.control.enabled:
        raise ConfigurationError(f"{options.config}: control.enabled: is false, the agent takes no commands")
    topic = OutputTopics(settings.mqtt.base_topic, settings.mqtt.node).command(
        options.what, str(uuid.uuid4())
    )
    answer = ask(settings.mqtt, topic, json.dumps(request).encode(), _final, options.timeout)
    content = json.loads(answer)
    if options.json:
        print(json.dumps(content))
    if content["status"] == "failed":
        if not options.json:
            raise ForewarnError(f"{options.what}: failed: {content['reason']}")
        return 1
    if not options.json:
        print(f"{options.what}: successful")
    return 0


def _final(payload: bytes) -> bool:
    """Return whether a message is the agent's last word on a command."""
    try:
        content = json.loads(payload)
    except ValueError:
        return False
    return isinstance(content, dict) and content.get("status") in ("successful", "failed")


def _kept(options: argparse.Namespace) -> "FeedbackState":
    """Return what the agent keeps on disk."""
    from edge_agent.feedback_shares import read_shares
    from edge_agent.settings import load_settings

    directory = load_settings(options.config).feedback.effective_directory
    if directory is None:
        raise ConfigurationError(f"{options.config}: feedback.directory: must be given")
    try:
        return read_shares(directory)
    except ValueError as error:
        raise ForewarnError(str(error)) from error


def _list(options: argparse.Namespace) -> int:
    from edge_agent.events import rfc3339

    state = _kept(options)
    now = time.time()
    muted = {name: one.muted_until for name, one in state.assets.items() if now < one.muted_until}
    worked_on = {
        name: one.maintenance_until
        for name, one in state.assets.items()
        if one.maintenance_since <= now < one.maintenance_until
    }
    alarms = sorted(state.alarms.values(), key=lambda one: one.start)
    if options.json:
        entries = [
            {
                "alarm_id": one.alarm_id,
                "asset": one.asset,
                "onset": rfc3339(one.onset),
                "start": rfc3339(one.start),
                "last": rfc3339(one.last),
                "ended": one.ended,
                "announced": one.announced,
                "severity": one.severity,
                "peak_score": one.peak_score,
                "sensors": list(one.named),
                "acknowledged": None if one.acknowledged is None else one.acknowledged.model_dump(),
                "mark": None if one.mark is None else one.mark.model_dump(),
            }
            for one in alarms
        ]
        ends = {key: {name: rfc3339(until) for name, until in part.items()} for key, part in (
            ("muted", muted), ("maintenance", worked_on))}  # fmt: skip
        print(json.dumps({**ends, "alarms": entries}, allow_nan=False))
        return 0
    for word, part in (("muted", muted), ("maintenance", worked_on)):
        for name, until in part.items():
            print(f"{word} until {rfc3339(until)}: {name}")
    for one in alarms:
        facts = [one.severity, ", ".join(one.named), "" if one.announced else "suppressed"]
        facts += ["acknowledged"] if one.acknowledged else []
        facts += [one.mark.label] if one.mark else []
        print(f"{one.alarm_id} {rfc3339(one.start)} {one.asset}: {'; '.join(fact for fact in facts if fact)}")
    print(f"{len(alarms)} alarms, {sum(one.mark is not None for one in alarms)} of them marked")
    return 0


def _export(options: argparse.Namespace) -> int:
    from edge_agent.contract.labels import LabelledInterval, write_labels

    alarms = sorted(_kept(options).alarms.values(), key=lambda one: one.start)
    intervals = [
        LabelledInterval(one.asset, one.onset, one.last, one.mark.label, one.named, one.mark.note or "")
        for one in alarms
        if one.mark is not None
    ]
    write_labels(options.out, intervals)
    if options.json:
        print(json.dumps({"out": str(options.out), "labels": len(intervals)}))
    else:
        print(f"{options.out}: {len(intervals)} labels", file=sys.stdout)
    return 0
