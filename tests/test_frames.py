"""Laws of the frames between the process with the connection and its workers: what goes in comes out, however cut."""

import random

import pytest

from edge_agent.frames import (
    BATCH,
    BEAT,
    SAID,
    FrameReader,
    Said,
    pack,
    pack_batch,
    pack_said,
    unpack_batch,
    unpack_said,
)
from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages


def _messages(count: int, source: random.Random) -> Messages:
    messages = Messages(arrival=source.random(), clock=source.random())
    for _ in range(count):
        topic, payload = source.randbytes(source.randrange(1, 40)), source.randbytes(source.randrange(300))
        messages.add(topic, payload, source.randrange(3), source.randrange(5), source.random() < 0.5)
    return messages


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_comes_out_as_it_went_in(seed: int) -> None:
    """Topics, payloads, first bytes and times are the same; packet identifiers stay where the connection is."""
    source = random.Random(seed)
    batch = [_messages(source.choice([1, 3, 200]), source) for _ in range(source.randrange(1, 4))]
    found = unpack_batch(pack_batch(batch))
    assert len(found) == len(batch)
    for mine, theirs in zip(batch, found, strict=True):
        assert (theirs.topics, theirs.payloads, theirs.heads) == (mine.topics, mine.payloads, mine.heads)
        assert (theirs.arrival, theirs.clock, theirs.size) == (mine.arrival, mine.clock, mine.size)
        assert theirs.mids == []


def test_what_is_said_comes_out_as_it_went_in() -> None:
    """Events keep their order, their QoS and whether they are retained."""
    messages = [
        OutgoingMessage("forewarn/edge/event/Süd", b"{}", 1),
        OutgoingMessage("forewarn/edge/alarm/p1", b"", 2, retain=True),
        OutgoingMessage("forewarn/edge/event/p1", b"x" * 100_000, 0),
    ]
    assert unpack_said(pack_said(Said(3, 0.25, messages))) == Said(3, 0.25, messages)
    assert unpack_said(pack_said(Said())) == Said()


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_frames_are_found_in_any_pieces(size: int) -> None:
    """A stream that arrives in pieces of any size gives the same frames, empty ones too."""
    frames = [(BATCH, b"x" * 70_000), (BEAT, b""), (SAID, b"y"), (BEAT, b"z" * 6000)]
    stream = b"".join(pack(kind, body) for kind, body in frames)
    reader = FrameReader()
    found = [frame for at in range(0, len(stream), size) for frame in reader.feed(stream[at : at + size])]
    assert found == frames
