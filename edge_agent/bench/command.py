"""The command `edge-agent bench`; only parsing happens at import, so that the daemon's command line stays quick."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.contract.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from edge_agent.bench.over_broker import Site
    from edge_agent.settings import Settings

ASSETS = 100
SECONDS = 10.0
PACE = 2000.0
_PORT = 1883
_SWEEP = (1, 10, 100, 1000, 10_000, 100_000)
_EXAMPLES = """examples:
  edge-agent bench --bundle bundle
  edge-agent bench --bundle bundle --assets 1000 --sweep --json
  edge-agent bench --bundle bundle --host 127.0.0.1 --port 1883
"""


def add_bench(commands: Any) -> None:
    """Add `bench` to the commands of `edge-agent`."""
    about = "Measure throughput, latency and memory of a bundle on this device."
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help=about,
        description=about
        + " Without a broker everything happens in this process; with one, the daemon is measured at it too.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="default: the one of --config")
    parser.add_argument("--config", type=Path, metavar="TOML", help="the agent's; also measure at its broker")
    parser.add_argument("--assets", type=int, default=ASSETS, metavar="N", help=f"default {ASSETS}")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"default {SECONDS:g}")
    parser.add_argument("--sweep", action="store_true", help="also 1, 10, 100 … assets, up to --assets")
    parser.add_argument("--host", metavar="NAME", help="also measure at this broker, default 127.0.0.1")
    parser.add_argument("--port", type=int, metavar="N", help=f"of that broker, default {_PORT}")
    parser.add_argument(
        "--pace", type=float, default=PACE, metavar="N",
        help=f"messages a second while latency is measured at the broker, default {PACE:g}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(command=_bench)


def _bench(options: argparse.Namespace) -> int:
    # As the daemon has it: other packages' plugins stay out, and no matrix product waits for threads.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _check(options)
    from edge_agent.bench.in_process import measure
    from edge_agent.bench.over_broker import measure_over_broker

    settings = _settings(options.config)
    bundle = options.bundle if settings is None else options.bundle or settings.bundle.path
    site = _site(options, settings, bundle)
    sizes = [*(count for count in _SWEEP if options.sweep and count < options.assets), options.assets]
    step = _shower()
    found = measure(bundle, sizes, options.seconds, step)
    found["broker"] = None if site is None else measure_over_broker(site, options.seconds, options.pace, step)
    step("")
    if options.json:
        print(json.dumps(found, allow_nan=False))
    else:
        print("\n".join(_lines(found)))
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.bundle is None and options.config is None:
        raise UsageError("bench: --bundle DIR must be given, or --config TOML that names one")
    for name, least in (("assets", 1), ("seconds", 0.0), ("pace", 0.0), ("port", 1)):
        value = getattr(options, name)
        if value is not None and not (value >= least and value > 0.0 and value < float("inf")):
            raise UsageError(f"--{name}: is {value:g}, must be above 0")


def _settings(path: Path | None) -> "Settings | None":
    if path is None:
        return None
    from edge_agent.settings import load_settings

    return load_settings(path)


def _site(options: argparse.Namespace, settings: "Settings | None", bundle: Path) -> "Site | None":
    """Return where the daemon is to be measured, None where no broker was named."""
    from edge_agent.bench.over_broker import Site

    if settings is None and options.host is None and options.port is None:
        return None
    host, port, user = "127.0.0.1", _PORT, None
    if settings is not None:
        mqtt = settings.mqtt
        if mqtt.tls.enabled and options.host is None:
            raise ConfigurationError(
                f"{options.config}: mqtt.tls.enabled: bench speaks without TLS; --host and --port name another listener"
            )
        host, port = mqtt.host, mqtt.port
        password = mqtt.read_password()
        user = None if mqtt.username is None else (mqtt.username, password or "")
    return Site(options.host or host, options.port or port, user, options.config, bundle, options.assets)


def _shower() -> Callable[[str], None]:
    """Return a function that shows what is being measured, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda _text: None
    return lambda text: print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _lines(found: dict[str, Any]) -> list[str]:
    """Return the record as a table for a person."""
    bundle = found["bundle"]
    detector = found["detector_samples_per_cpu_second"]
    rows: list[tuple[str, str, str]] = [
        ("message to score, samples", _count(found["samples_per_second"]), "a second"),
        ("", _count(found["samples_per_cpu_second"]), "a CPU-second"),
        ("one message alone, p50", f"{found['latency_p50_ms']:.3f}", "ms"),
        ("p99", f"{found['latency_p99_ms']:.3f}", "ms"),
        ("p99.9", f"{found['latency_p999_ms']:.3f}", "ms"),
        ("memory", f"{found['rss_mb']:.0f}", f"MB ({found['rss_at_start_mb']:.0f} with the bundle alone)"),
        ("detector, all assets at once", _count(detector["all_assets"]), "samples a CPU-second"),
        ("one asset, 256 at once", _count(detector["one_asset_chunks"]), "samples a CPU-second"),
        ("one asset, row by row", _count(detector["one_asset_row_by_row"]), "samples a CPU-second"),
    ]
    rows += [
        (
            f"{one['assets']} assets",
            _count(one["samples_per_cpu_second"]),
            f"samples a CPU-second, {one['rss_mb']:.0f} MB",
        )
        for one in found["sweep"] or ()
    ]
    if found["broker"] is not None:
        rows += _broker_rows(found["broker"])
    head = (
        f"{bundle['name']} {bundle['version']}, {found['sensors']} sensors, {found['inference']} on "
        f"{found['provider']}, {found['assets']} assets"
    )
    notes = [f"{found['alarms']} alarms began among the readings"] if found["alarms"] else []
    if found["samples_scored"] < found["samples"]:
        notes.append(
            f"{found['samples'] - found['samples_scored']} of {found['samples']} samples had no score"
        )
    if found["broker"] is not None and found["broker"]["readings_rejected"]:
        notes.append(f"{found['broker']['readings_rejected']} readings were rejected at the broker")
    return [head, *(f"  {name:<30}{value:>12} {unit}" for name, value, unit in rows), *notes]


def _broker_rows(broker: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        ("the daemon at the broker", _count(broker["samples_per_second"]), "samples a second"),
        ("", _count(broker["samples_per_cpu_second"]), "samples a CPU-second"),
        (f"published to scored, {broker['pace']:g}/s", f"{broker['publish_to_score_p50_ms']:.2f}", "ms, p50"),
        ("", f"{broker['publish_to_score_p99_ms']:.2f}", "ms, p99"),
        ("", f"{broker['publish_to_score_p999_ms']:.2f}", "ms, p99.9"),
        ("start until ready", f"{broker['start_seconds']:.2f}", "s"),
        ("memory", f"{broker['rss_mb']:.0f}", "MB"),
    ]


def _count(value: float) -> str:
    """Return three significant digits, thousands apart."""
    return f"{float(f'{value:.3g}'):,.0f}".replace(",", " ")
