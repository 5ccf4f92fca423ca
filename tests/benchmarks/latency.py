"""How long a published sample waits for its score, and a fault for its alarm, at a steady pace on a real broker.

Publish to score: all messages have QoS 1, and the daemon acknowledges one when it is scored. A relay between broker
and daemon sees that acknowledgement, so nothing is added to the daemon; the relay's own time is in the figures.
Publish to alarm: a fault in each asset, and a subscriber that notes when the event arrives. The event's time says which
sample opened the alarm.
"""

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edge_agent.bench.over_broker import latency_record
from edge_agent.bench.relay import Relay
from edge_agent.bench.wire import PUBLISH, Client
from edge_agent.contract.errors import BrokerError
from edge_agent.contract.types import Float64
from tests.benchmarks.figures import in_turn, spread
from tests.benchmarks.payloads import PREFIX, Fault
from tests.benchmarks.publisher import Stream, sent_at
from tests.benchmarks.site import Site, Subject, running_site
from trainer.progress import Progress

_EVENTS = "forewarn/edge/event/+"
_PATIENCE_SECONDS = 60.0
# In scales of the sensor: no machine in order reads so, and it is far within what is physically possible.
_FAULT_SCALES = 10.0


@dataclass(frozen=True)
class Steady:
    """One steady stream.

    Attributes:
        assets: how many send; each has one fault.
        pace: messages a second.
        rows: of each asset, after the warm-up.
    """

    assets: int = 1000
    pace: float = 2000.0
    rows: int = 40


QUICK = Steady(assets=200, rows=40)
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "linger": {"agent__linger_milliseconds": 5.0},
}
"""Settings of the daemon under which the latency is measured."""


def measure_latency(
    subject: Subject, scratch: Path, rounds: int, progress: Progress, steady: Steady | None = None
) -> dict[str, Any]:
    """Measure each way of `WAYS` once a round.

    Args:
        subject: model and readings.
        scratch: an empty directory.
        rounds: how often.
        progress: told after each measurement.
        steady: the stream.

    Returns:
        `ways`, a record each with the percentiles over all rounds' messages and the spread of each round's.
    """
    steady = steady or Steady()
    runs: dict[str, list[_Run]] = {key: [] for key in WAYS}
    with running_site(subject, scratch) as site:
        progress.stage("latency", rounds * len(WAYS))
        fault = _fault(site, steady)
        expected = site.expected_alarms(steady.assets, site.warm_rows + steady.rows, fault)
        for number in range(rounds):
            for at in in_turn(len(WAYS), number):
                key = list(WAYS)[at]
                runs[key].append(_run(site, steady, fault, expected, WAYS[key]))
                progress.advance(1, key)
    return {
        "rounds": rounds,
        "pace": steady.pace,
        "assets": steady.assets,
        "alarms": len(expected),
        "ways": [{"key": key, **_record(found)} for key, found in runs.items()],
    }


@dataclass(frozen=True)
class _Run:
    """Seconds from publishing to the score of each message, and to the alarm of each fault; CPU seconds a second."""

    score: Float64
    alarm: Float64
    core: float


def _record(runs: list[_Run]) -> dict[str, Any]:
    rounds = [
        {**latency_record("publish_to_score", run.score), **latency_record("publish_to_alarm", run.alarm)}
        for run in runs
    ]
    return {
        **latency_record("publish_to_score", np.concatenate([run.score for run in runs])),
        **latency_record("publish_to_alarm", np.concatenate([run.alarm for run in runs])),
        "spread": {name: spread(one[name] for one in rounds) for name in rounds[0]},
        "core_percent": spread(100.0 * run.core for run in runs),
        "messages": sum(len(run.score) for run in runs),
    }


def _fault(site: Site, steady: Steady) -> Fault:
    size = _FAULT_SCALES * float(site.subject.bundle.manifest.scaling.scale[0])
    spread_rows = max(steady.rows // 2, 1)
    return Fault(site.warm_rows + steady.rows // 4, spread_rows, size)


def _run(
    site: Site, steady: Steady, fault: Fault, expected: set[tuple[int, float]], settings: dict[str, Any]
) -> _Run:
    stream = site.stream(assets=steady.assets, fault=fault, qos=1)
    times = site.scratch / "times.npy"
    messages = steady.assets * steady.rows
    with (
        Relay("127.0.0.1", site.port, f"{PREFIX}/") as relay,
        site.daemon(1, steady.assets, port=relay.port, **settings) as daemon,
        _Ear(site.port) as ear,
    ):
        daemon.wait_until_subscribed()
        stream.warm(site.warm_rows)
        unscored = site.unscored(steady.assets)
        begun = daemon.wait_until_scored(steady.assets * site.warm_rows - unscored)
        stream.publish(site.warm_rows, steady.rows, steady.pace, times)
        spent = daemon.wait_until_scored(steady.assets * site.warm_rows + messages - unscored) - begun
        starts = ear.starts(len(expected))
        acknowledged = relay.acknowledged()
    sent = sent_at(times)
    assert len(acknowledged) == messages, f"{len(acknowledged)} messages of {messages} were acknowledged"
    assert starts.keys() == expected, "the alarms are not those of the detector"
    number_of = {key: _message(stream, site, key) for key in starts}
    return _Run(
        np.array(acknowledged) - sent,
        np.array([starts[key] - sent[number] for key, number in number_of.items() if number >= 0]),
        spent * steady.pace / messages,
    )


def _message(stream: Stream, site: Site, key: tuple[int, float]) -> int:
    """Return the number of the message that holds an asset's sample of some time; below 0 while warming up."""
    asset, moment = key
    row = round((moment - stream.load.time(0)) / stream.interval)
    return (row - site.warm_rows) * stream.assets + asset


class _Ear:
    """Notes when the start of each alarm arrives; as a context it hears until it ends."""

    def __init__(self, port: int) -> None:
        self._client = Client("127.0.0.1", port, "ear", patience_seconds=_PATIENCE_SECONDS)
        self._heard: list[tuple[float, bytes]] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._hear, daemon=True)

    def __enter__(self) -> "_Ear":
        self._client.subscribe(_EVENTS)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)

    def _hear(self) -> None:
        try:
            while True:
                packets = self._client.packets()
                moment = time.monotonic()
                with self._news:
                    self._heard += [(moment, body) for first, body in packets if first >> 4 == PUBLISH]
                    self._news.notify_all()
        except BrokerError:
            # The connection was closed: what is to be heard has been.
            return

    def starts(self, count: int) -> dict[tuple[int, float], float]:
        """Return when each start arrived, by asset and time of the opening, once there are so many."""
        with self._news:
            assert self._news.wait_for(lambda: len(self._starts()) >= count, _PATIENCE_SECONDS), (
                f"{len(self._starts())} alarms were heard, not {count}"
            )
            return self._starts()

    def _starts(self) -> dict[tuple[int, float], float]:
        found: dict[tuple[int, float], float] = {}
        for moment, body in self._heard:
            event = json.loads(body[body.index(b"{") :])
            if event["kind"] == "start":
                found[int(event["asset"]), event["time_epoch"]] = moment
        return found
