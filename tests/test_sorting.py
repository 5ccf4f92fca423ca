"""Laws of which worker gets which message: all of an asset's go to one, in their order, and nothing is lost unseen."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from edge_agent.packets import Messages
from edge_agent.partition import owner
from edge_agent.settings import Settings
from edge_agent.sorting import Sorter
from edge_agent.tally import Tally

INPUTS = [
    {"topic": "plant/{asset}"},
    {"topic": "line/+/{asset}/{sensor}"},
    {"topic": "boiler/#", "asset": "boiler"},
]


def _sorter(workers: int = 3, most: int = 1000) -> tuple[Sorter, Tally]:
    content: dict[str, Any] = {
        "agent": {"workers": workers, "max_assets": most},
        "bundle": {"path": Path("bundle")},
        "mqtt": {"inputs": INPUTS},
    }
    tally = Tally()
    return Sorter(Settings.model_validate(content), tally), tally


def _one(topic: str, payload: bytes = b"1", retained: bool = False) -> list[Messages]:
    messages = Messages()
    messages.add(topic.encode(), payload, retained=retained)
    return [messages]


def _worker(sorter: Sorter, topic: str, payload: bytes = b"1", retained: bool = False) -> int | None:
    parts = sorter.sort(_one(topic, payload, retained))
    got = [worker for worker, part in enumerate(parts) if part]
    assert len(got) <= 1
    return got[0] if got else None


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_an_asset_has_one_worker_and_its_messages_keep_their_order(workers: int) -> None:
    """Whole rows, single sensors and fixed assets of any stream are divided by asset, each stream in its order."""
    source = random.Random(workers)
    sorter, _ = _sorter(workers)
    sent: dict[str, list[bytes]] = {}
    got: dict[str, list[bytes]] = {}
    for number in range(40):
        batch = []
        for _ in range(source.randrange(1, 4)):
            messages = Messages(arrival=float(number))
            for _ in range(source.randrange(1, 60)):
                asset = f"a{source.randrange(30)}"
                topic = source.choice([f"plant/{asset}", f"line/7/{asset}/flow", "boiler/x/y"])
                asset = "boiler" if topic.startswith("boiler") else asset
                payload = f"{asset} {len(sent.get(asset, []))}".encode()
                sent.setdefault(asset, []).append(payload)
                messages.add(topic.encode(), payload, 1, 9)
            batch.append(messages)
        for worker, part in enumerate(sorter.sort(batch)):
            for messages in part:
                assert messages.arrival == number
                assert messages.heads == [0x32] * len(messages)
                for payload in messages.payloads:
                    asset = payload.decode().partition(" ")[0]
                    assert owner(asset, workers) == worker == sorter.assets[asset]
                    got.setdefault(asset, []).append(payload)
    assert got == sent


def test_what_no_worker_gets_is_counted() -> None:
    """Unknown topics, bytes that are no text, retained readings and one asset too many have their reason."""
    sorter, tally = _sorter(most=2)
    for topic in ("plant/a", "plant/b", "plant/c", "plant/c", "other", "plant/a"):
        _worker(sorter, topic)
    assert _worker(sorter, "plant/a", retained=True) is None
    messages = Messages()
    messages.add(b"plant/\xff", b"1")
    assert sorter.sort([messages]) == [[], [], []]
    assert list(sorter.assets) == ["a", "b"]
    assert tally.rejected == {"too_many_assets": 2, "unknown_topic": 2, "retained": 1}
    assert tally.messages == 5


def test_what_the_agent_is_told_goes_to_the_worker_of_the_asset() -> None:
    """Retained alarms and commands on an asset find its worker, however its name is written in a topic."""
    sorter, tally = _sorter()
    for asset in ("p1", "hall/2", "50%", "+"):
        level = asset.replace("%", "%25").replace("/", "%2F").replace("+", "%2B")
        command = json.dumps({"status": "init", "asset": asset}).encode()
        assert _worker(sorter, f"forewarn/edge/alarm/{level}", retained=True) == owner(asset, 3)
        assert _worker(sorter, "forewarn/edge/cmd/mute/1", command) == owner(asset, 3)
    assert (tally.messages, dict(tally.rejected), sorter.assets) == (0, {}, {})


def test_a_command_without_sense_always_goes_to_the_same_worker() -> None:
    """So what comes twice is known again; which worker that is, the topic says."""
    sorter, _ = _sorter()
    for payload in (b"", b"{", b"[1]", b'{"asset": 5}', b"{" * 20_000):
        found = {_worker(sorter, f"forewarn/edge/cmd/mute/{number}", payload) for number in range(30)}
        assert found == {0, 1, 2}
        assert _worker(sorter, "forewarn/edge/cmd/mute/1", payload) == owner("forewarn/edge/cmd/mute/1", 3)


def test_a_command_on_an_alarm_is_a_question() -> None:
    """Which worker knows the alarm must be asked; the message is kept as it came."""
    sorter, _ = _sorter()
    payload = b'{"status": "init", "alarm_id": "x", "label": "none"}'
    assert _worker(sorter, "forewarn/edge/cmd/mark/1", payload, retained=True) is None
    (question,) = sorter.questions
    assert (question.alarm_id, question.fallback) == ("x", owner("forewarn/edge/cmd/mark/1", 3))
    message = question.message
    assert (message.topics, message.payloads) == ([b"forewarn/edge/cmd/mark/1"], [payload])
    assert message.retained(0)
