"""What several workers score: a backlog at the broker, by the clock, by CPU time and by the busiest process."""

import os
import signal
import threading
import time
from typing import Any

from edge_agent.bench.daemon import Daemon
from tests.benchmarks.figures import spread
from tests.benchmarks.site import Site
from trainer.progress import Progress

_POLL_SECONDS = 0.02


def measure_workers(
    site: Site, counts: tuple[int, ...], assets: int, rows: int, rounds: int, progress: Progress
) -> list[dict[str, Any]]:
    """Return a record for each number of workers, measured in turn.

    Args:
        site: where it takes place.
        counts: numbers of workers.
        assets: that send.
        rows: of each asset, one a message.
        rounds: how often.
        progress: told after each measurement.

    Returns:
        `workers`, and spreads of samples a second: `samples_per_second` by the clock of a machine that may be busy
        with other things, `samples_per_cpu_second` of all processes together, and `samples_per_busiest_second`, by
        the CPU time of the busiest process: what there is to be had where every process has a core of its own.
    """
    found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            found[count].append(_backlog(site, count, assets, rows))
            progress.advance(1, f"{count} workers")
    keys = ("samples_per_second", "samples_per_cpu_second", "samples_per_busiest_second")
    return [
        {"workers": count, **{key: spread(run[key] for run in runs) for key in keys}}
        for count, runs in found.items()
    ]


def _backlog(site: Site, workers: int, assets: int, rows: int) -> dict[str, float]:
    warm, unscored = site.warm_rows, site.unscored(assets)
    stream = site.stream(assets=assets)
    settings = {"agent__workers": workers, "metrics__max_series_assets": 0}
    with site.daemon(most_assets=assets, **settings) as daemon:
        daemon.wait_until_subscribed()
        stream.warm(warm)
        daemon.wait_until_scored(assets * warm - unscored)
        processes = daemon.processes()
        # The publisher does not take part: all waits at the broker when the clock begins.
        _signal(processes, signal.SIGSTOP)
        stream.publish(warm, rows)
        used, begun = _used(processes), time.perf_counter()
        _signal(processes, signal.SIGCONT)
        _wait_until_scored(daemon, assets * (warm + rows) - unscored)
        seconds = time.perf_counter() - begun
        each = [after - before for before, after in zip(used, _used(processes), strict=True)]
    samples = assets * rows
    return {
        "samples_per_second": samples / seconds,
        "samples_per_cpu_second": samples / sum(each),
        "samples_per_busiest_second": samples / max(each),
    }


def _signal(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


def _used(processes: list[int]) -> list[float]:
    return [time.clock_gettime((~process << 3) | 2) for process in processes]


def _wait_until_scored(daemon: Daemon, samples: int) -> None:
    pause = threading.Event()
    while daemon.metric("forewarn_samples_scored_total") < samples:
        pause.wait(_POLL_SECONDS)
