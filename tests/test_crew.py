"""Laws of the crew: when a batch is done, how much is handed out, whom a command on an alarm reaches, one page."""

import os
import pickle
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from edge_agent import crew as module
from edge_agent.board import AssetBoard
from edge_agent.contract.types import Rows
from edge_agent.crew import Crew
from edge_agent.crew_member import Handed
from edge_agent.events import BundleIdentity
from edge_agent.frames import BEAT, BEAT_FORM, KNOWN, PART, SAID, Said, Setup, pack_said
from edge_agent.metrics import Facts, Latency
from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.partition import owner
from edge_agent.settings import Settings
from edge_agent.tally import Tally
from edge_agent.united import Part
from tests.broker import PATIENCE_SECONDS

FACTS = Facts(BundleIdentity("pump", "1", "ab"), "cpu", ("flow",), 3.5, 10.0, 1000.0, 3)
FIRST, SECOND = (next(f"a{n}" for n in range(9) if owner(f"a{n}", 2) == worker) for worker in (0, 1))


class _Member:
    """A worker that only notes what it is given."""

    def __init__(self, setup: Setup) -> None:
        self.number = setup.worker
        self.owed: list[Handed] = []
        self.given: list[list[bytes]] = []
        self.sent: list[bytes] = []
        self.lost = ""
        self.beaten = False
        self.assets = self.active = self.descriptor = 0
        self.has_unsent = False

    class _Owed(list[Handed]):
        def popleft(self) -> Handed:
            return self.pop(0)

    def greet(self) -> Facts:
        """Return the facts."""
        self.owed = self._Owed()
        return FACTS

    @property
    def process(self) -> Any:
        """Return something with an id: this process."""
        return Mock(pid=os.getpid())

    def give(self, handed: Handed, part: list[Messages]) -> None:
        """Note a part."""
        handed.left += 1
        self.owed.append(handed)
        self.given.append([topic for messages in part for topic in messages.topics])

    def send(self, frame: bytes) -> None:
        """Note a frame."""
        self.sent.append(frame)


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Crew:
    """Two workers, and what they published in `crew.heard`."""
    monkeypatch.setattr(module, "CrewMember", _Member)
    settings = Settings.model_validate({"agent": {"workers": 2}, "bundle": {"path": Path("bundle")}})
    return Crew(settings, lambda _: None)


def _batch(*assets: str) -> list[Messages]:
    messages = Messages()
    for asset in assets:
        messages.add(f"plant/{asset}".encode(), b"1", 1, 1)
    return [messages]


def _done(crew: Crew, worker: int, count: int = 1) -> None:
    crew._take(worker, SAID, pack_said(Said(count, 0.5)))


def test_a_batch_is_done_when_every_worker_with_a_part_is(crew: Crew) -> None:
    """Receipts come in the order of the batches, after the slowest worker's word, and not for what is only early."""
    first, second, third = _batch(FIRST, SECOND), _batch(SECOND), _batch("x/y")
    for batch in (first, second, third):
        crew.hand_out(batch)
    assert crew.done() == []
    _done(crew, 1, 2)
    assert crew.done() == []
    assert not crew.idle
    _done(crew, 0)
    # Nobody had a part of the last one, which must wait for those before it.
    assert crew.done() == [first, second, third]
    assert crew.idle
    assert crew.turn_seconds == 0.5


def test_what_is_said_comes_before_the_receipt(monkeypatch: pytest.MonkeyPatch, crew: Crew) -> None:
    """Events of a batch are put into the outbox, in order, before the batch is done."""
    heard: list[tuple[str, bool]] = []
    monkeypatch.setattr(crew, "_put", lambda message: heard.append((message.topic, bool(crew.done()))))
    crew.hand_out(_batch(FIRST))
    crew._take(0, SAID, pack_said(Said(0, 0.0, [OutgoingMessage("early", b"")])))
    assert crew.done() == []
    crew._take(0, SAID, pack_said(Said(1, 0.1, [OutgoingMessage("one", b""), OutgoingMessage("two", b"")])))
    assert heard == [("early", False), ("one", False), ("two", False)]
    assert len(crew.done()) == 1


def test_only_so_much_is_handed_out(crew: Crew) -> None:
    """With eight batches that one worker owes there is no room, though the other has nothing to do; then there is."""
    for _ in range(8):
        assert crew.has_room
        crew.hand_out(_batch(FIRST, SECOND))
    _done(crew, 1, 8)
    assert crew.done() == []
    assert not crew.has_room
    _done(crew, 0)
    assert len(crew.done()) == 1
    assert crew.has_room


@pytest.mark.parametrize(
    ("knows", "reached"), [((False, True), 1), ((True, False), 0), ((False, False), None)]
)
def test_a_command_on_an_alarm_reaches_the_worker_that_knows_it(
    crew: Crew, knows: tuple[bool, bool], reached: int | None
) -> None:
    """All are asked; who knows the alarm gets it, or always the same if nobody does; it is done only after that."""
    topic = "forewarn/edge/cmd/mark/1"
    messages = Messages()
    messages.add(topic.encode(), b'{"status": "init", "alarm_id": "x", "label": "none"}', 1, 1)
    crew.hand_out([messages])
    reached = owner(topic, 2) if reached is None else reached
    for worker, known in enumerate(knows):
        assert crew.done() == []
        crew._take(worker, KNOWN, bytes([known]))
    given: list[Any] = [member.given for member in crew._members]  # type: ignore[attr-defined]
    assert given[reached] == [[topic.encode()]]
    assert given[1 - reached] == []
    assert crew.done() == []
    _done(crew, reached)
    assert crew.done() == [[messages]]


def test_the_heart_beats_with_the_slowest(crew: Crew) -> None:
    """Only when every worker went round did the daemon; assets and alarms are told as their sums."""
    crew._take(0, BEAT, BEAT_FORM.pack(3, 1))
    crew._take(0, BEAT, BEAT_FORM.pack(4, 1))
    assert not crew.beaten()
    crew._take(1, BEAT, BEAT_FORM.pack(2, 1))
    assert crew.summary() == "assets 6, in alarm 2"
    assert crew.beaten()
    assert not crew.beaten()


def _part(assets: list[str], flow: float) -> Part:
    board = AssetBoard(1)
    count = len(assets)
    board.take_rows(Rows(np.arange(count), np.full(count, 5.0), np.full((count, 1), flow, np.float32)), 9.0)
    tally = Tally(messages=10, last_reading=flow)
    tally.rejected["nan"] = 2
    latency = Latency()
    latency.observe(0.02, 10)
    return Part(assets, board.snapshot(count), tally, {"late": 1}, {"spike": 4}, latency)


def test_metrics_of_all_are_one_page(crew: Crew) -> None:
    """Counts and histograms add up, assets stand side by side in the order in which they came, up to the cap."""
    crew.tally.messages = 1
    crew.tally.rejected["overrun"] = 7
    names = ["b", "a", "d", "c"]
    crew._sorter.assets.update(dict.fromkeys(names, 0))
    wanted = threading.Event()
    crew._client = Mock(wake=wanted.set)
    pages: list[str] = []
    scrape = threading.Thread(target=lambda: pages.append(crew.exposition().decode()))
    scrape.start()
    assert wanted.wait(PATIENCE_SECONDS)
    crew.ask_for_metrics()
    crew._take(1, PART, pickle.dumps(_part(["c", "b"], 2.0)))
    crew._take(0, PART, pickle.dumps(_part(["a", "d"], 3.0)))
    scrape.join()
    series = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
              for line in pages[0].splitlines() if not line.startswith("#")}  # fmt: skip
    assert series["forewarn_messages_received_total"] == 21
    assert series['forewarn_readings_rejected_total{reason="nan"}'] == 4
    assert series['forewarn_readings_rejected_total{reason="late"}'] == 2
    assert series['forewarn_readings_rejected_total{reason="overrun"}'] == 7
    assert series['forewarn_data_quality_events_total{reason="spike"}'] == 8
    assert series["forewarn_score_latency_seconds_count"] == 20
    assert series['forewarn_score_latency_seconds_bucket{le="0.01"}'] == 0
    assert series["forewarn_last_reading_timestamp_seconds"] == 3
    assert series["forewarn_assets"] == 4
    values = {name: value for name, value in series.items() if name.startswith("forewarn_asset_sensor_value")}
    assert list(values.items()) == [
        ('forewarn_asset_sensor_value{asset="b",sensor="flow"}', 2.0),
        ('forewarn_asset_sensor_value{asset="a",sensor="flow"}', 3.0),
        ('forewarn_asset_sensor_value{asset="d",sensor="flow"}', 3.0),
    ]
    # Our own process stands for both workers here.
    assert series["process_resident_memory_bytes"] > 2.5e7
    assert series["process_max_fds"] > 0


def test_a_worker_that_does_not_answer_is_no_page(monkeypatch: pytest.MonkeyPatch, crew: Crew) -> None:
    """Half of the counts would look like a restart: there is no page then."""
    monkeypatch.setattr(module, "_SCRAPE_SECONDS", 0.01)
    with pytest.raises(TimeoutError, match="a worker does not answer"):
        crew.exposition()
