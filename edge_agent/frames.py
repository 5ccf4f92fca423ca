"""What passes between the process that has the connection and its workers: frames on a socket pair.

A frame is a byte of kind, four bytes of length and a body. Messages travel as columns: their first bytes, the lengths
of topics and payloads, all topics, all payloads. What passes once or once a scrape is pickled: both ends are the same
program, and nobody else holds an end.
"""

import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from edge_agent.outbox import OutgoingMessage
from edge_agent.packets import Messages
from edge_agent.settings import Settings

SETUP, BATCH, ASK, SCRAPE = b"S", b"B", b"A", b"M"
"""To a worker: its settings; messages; whether it knows an alarm; what its metrics are."""
READY, REFUSED, SAID, BEAT, KNOWN, PART = b"r", b"f", b"s", b"b", b"k", b"m"
"""From a worker: it can begin; it cannot; what is to be published; it goes round; answers to the two questions."""

BEAT_FORM = struct.Struct("<II")
"""The body of a beat: how many assets, and how many of them in alarm."""

_HEAD = struct.Struct("<cI")
_GROUP = struct.Struct("<ddI")
_SAID = struct.Struct("<IdI")
_LENGTH = "I"
_RETAIN = 0x01


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a worker is told: the settings of the agent, and which of how many it is, counted from 0."""

    settings: Settings
    worker: int
    workers: int


def pack(kind: bytes, body: bytes = b"") -> bytes:
    """Return a frame."""
    return _HEAD.pack(kind, len(body)) + body


class FrameReader:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Take in what a read brought, in order; returns kind and body of each frame that is complete now."""
        held, frames, start = self._held, [], 0
        held += data
        while len(held) - start >= _HEAD.size:
            kind, length = _HEAD.unpack_from(held, start)
            body = start + _HEAD.size
            if len(held) - body < length:
                break
            frames.append((kind, bytes(held[body : body + length])))
            start = body + length
        del held[:start]
        return frames


def pack_batch(batch: Iterable[Messages]) -> bytes:
    """Return messages as the body of a frame; what only the broker needs of them stays behind."""
    pieces: list[bytes] = []
    for group in batch:
        pieces.append(_GROUP.pack(group.arrival, group.clock, len(group)))
        pieces += _columns(group.heads, group.topics, group.payloads)
    return b"".join(pieces)


def unpack_batch(body: bytes) -> list[Messages]:
    """Return the messages of a frame, without packet identifiers."""
    batch, at = [], 0
    while at < len(body):
        arrival, clock, count = _GROUP.unpack_from(body, at)
        heads, topics, payloads, at = _cut(body, at + _GROUP.size, count)
        size = sum(map(len, topics)) + sum(map(len, payloads))
        batch.append(Messages(topics, payloads, heads, [], size, arrival, clock))
    return batch


@dataclass(slots=True)
class Said:
    """What a worker has to say.

    Attributes:
        done: how many of the frames that it owed it has worked off.
        seconds: that this took.
        messages: to publish, in order; they come before any receipt for what is done.
    """

    done: int = 0
    seconds: float = 0.0
    messages: list[OutgoingMessage] = field(default_factory=list)


def pack_said(said: Said) -> bytes:
    """Return it as the body of a frame."""
    heads = [one.qos << 1 | one.retain for one in said.messages]
    topics = [one.topic.encode() for one in said.messages]
    payloads = [one.payload for one in said.messages]
    return _SAID.pack(said.done, said.seconds, len(heads)) + b"".join(_columns(heads, topics, payloads))


def unpack_said(body: bytes) -> Said:
    """Return what the body of a frame says."""
    done, seconds, count = _SAID.unpack_from(body)
    heads, topics, payloads, _ = _cut(body, _SAID.size, count)
    every = zip(heads, topics, payloads, strict=True)
    return Said(
        done,
        seconds,
        [
            OutgoingMessage(topic.decode(), load, head >> 1, bool(head & _RETAIN))
            for head, topic, load in every
        ],
    )


def _columns(heads: Sequence[int], topics: Sequence[bytes], payloads: Sequence[bytes]) -> list[bytes]:
    lengths = [array(_LENGTH, map(len, column)).tobytes() for column in (topics, payloads)]
    return [bytes(heads), *lengths, b"".join(topics), b"".join(payloads)]


def _cut(body: bytes, at: int, count: int) -> tuple[list[int], list[bytes], list[bytes], int]:
    """Return the columns that begin at `at`, and where they end."""
    heads = list(body[at : at + count])
    at += count
    columns = []
    lengths = array(_LENGTH)
    lengths.frombytes(body[at : at + 2 * count * lengths.itemsize])
    at += 2 * count * lengths.itemsize
    for column in (lengths[:count], lengths[count:]):
        places = list(accumulate(column, initial=at))
        columns.append([body[start:end] for start, end in pairwise(places)])
        at = places[-1]
    return heads, columns[0], columns[1], at
