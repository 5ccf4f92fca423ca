"""Memory of the daemon at a real broker: at its start, and with ever more assets that are warm."""

from pathlib import Path
from typing import Any

from edge_agent.bench.closed_loop import ClosedLoop
from edge_agent.bench.relay import Relay
from edge_agent.bench.wire import Client
from tests.benchmarks.payloads import PREFIX, messages
from tests.benchmarks.site import Site, Subject, running_site
from trainer.progress import Progress

ASSETS = (1, 1000, 10_000, 100_000)
QUICK = (1, 1000)
_ROWS_AFTER = 4
_MESSAGES_AT_ONCE = 40
_ASSETS_AT_ONCE = 400


def measure_memory(
    subject: Subject, scratch: Path, progress: Progress, sizes: tuple[int, ...] = ASSETS
) -> dict[str, Any]:
    """Measure one daemon for each number of assets.

    Args:
        subject: model and readings.
        scratch: an empty directory.
        progress: told after each measurement.
        sizes: numbers of assets.

    Returns:
        `resident_megabytes` at the start and `assets`, a record each of what is resident once all are warm, their
        metrics asked for once, and of the most that ever was.
    """
    with running_site(subject, scratch) as site:
        progress.stage("memory", len(sizes) + 1)
        with site.daemon() as daemon:
            daemon.wait_until_subscribed()
            start = daemon.resident_megabytes()
        progress.advance(1, "start")
        found = []
        for assets in sizes:
            found.append(_warm(site, assets))
            progress.advance(1, f"{assets} assets")
    return {"resident_megabytes": start, "assets": found}


def _warm(site: Site, assets: int) -> dict[str, float]:
    """Feed so many assets no faster than they are scored, so that no backlog is in the figure."""
    rows = site.warm_rows + _ROWS_AFTER
    load = site.stream(assets=assets).load
    with (
        Relay("127.0.0.1", site.port, f"{PREFIX}/") as relay,
        site.daemon(1, assets, port=relay.port) as daemon,
        Client("127.0.0.1", site.port, "feeder") as client,
    ):
        daemon.wait_until_subscribed()
        loop = ClosedLoop(client, relay, _MESSAGES_AT_ONCE)
        for first in range(0, assets, _ASSETS_AT_ONCE):
            # Every sample of an asset in one message: what stays is the same, and it is the quickest.
            count = min(_ASSETS_AT_ONCE, assets - first)
            loop.send(list(messages(load, "object", range(first, first + count), 0, rows, rows)))
        loop.drain()
        daemon.wait_until_scored(assets * rows - site.unscored(assets))
        return {
            "assets": assets,
            "resident_megabytes": daemon.resident_megabytes(),
            "peak_megabytes": daemon.peak_megabytes(),
        }
