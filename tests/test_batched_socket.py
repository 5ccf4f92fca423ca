"""Laws of the socket that is read in batches, on a pair of sockets of our own."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from edge_agent.batched_socket import BatchedSocket
from edge_agent.packets import Messages

READING = b"\x30\x05\x00\x01a12"
PINGRESP = b"\xd0\x00"


@pytest.fixture
def pair() -> Iterator[tuple[BatchedSocket, socket.socket]]:
    """The wrapped end, which does not wait, and the broker's end."""
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield BatchedSocket(near, newest=False), far


def test_readings_are_kept_and_other_packets_are_for_paho(pair: tuple[BatchedSocket, socket.socket]) -> None:
    """One read gives the readings apart from the packets that paho asks for, byte by byte if it likes."""
    connection, far = pair
    far.sendall(READING + PINGRESP + READING + PINGRESP[:1])
    messages = Messages()
    assert not connection.read(messages)
    assert messages.payloads == [b"12", b"12"]
    assert [connection.recv(1), connection.recv(9)] == [b"\xd0", b"\x00"]
    assert not connection.has_news
    with pytest.raises(BlockingIOError):
        connection.recv(1)
    far.sendall(PINGRESP[1:])
    connection.read(messages)
    assert connection.recv(9) == PINGRESP


def test_many_reads_lose_nothing(pair: tuple[BatchedSocket, socket.socket]) -> None:
    """Where the system's buffers cut packets anywhere, each comes out once."""
    connection, far = pair
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    many = READING * 20_000
    sent, messages = 0, Messages()
    far.setblocking(False)
    while len(messages) < 20_000:
        with contextlib.suppress(BlockingIOError):
            sent += far.send(many[sent:])
        connection.read(messages)
    assert set(messages.payloads) == {b"12"}


def test_paho_sees_the_end_after_the_last_packet(pair: tuple[BatchedSocket, socket.socket]) -> None:
    """What came before the connection ended is read first; then paho reads nothing, as from any closed socket."""
    connection, far = pair
    far.sendall(READING + PINGRESP)
    far.close()
    messages = Messages()
    connection.read(messages)
    connection.read(messages)
    assert (len(messages), connection.recv(9), connection.has_news, connection.recv(9)) == (
        1,
        PINGRESP,
        True,
        b"",
    )


def test_a_broken_connection_is_pahos_to_see(pair: tuple[BatchedSocket, socket.socket]) -> None:
    """An error of a read is raised where paho reads, and not where we do."""
    connection, _ = pair
    connection.close()
    assert not connection.read(Messages())
    with pytest.raises(OSError, match="Bad file descriptor"):
        connection.recv(1)
    connection.send_soon(b"x")


def test_what_does_not_go_at_once_goes_before_all_else(pair: tuple[BatchedSocket, socket.socket]) -> None:
    """Bytes of our own that the system does not take wait, and paho sends nothing into the middle of them."""
    connection, far = pair
    own = b"a" * (1 << 22)
    connection.send_soon(own)
    assert connection.has_unsent
    with pytest.raises(BlockingIOError):
        connection.send(b"b")
    heard = bytearray()
    while connection.has_unsent:
        heard += far.recv(1 << 20)
        connection.flush()
    assert connection.send(b"b") == 1
    while len(heard) <= len(own):
        heard += far.recv(1 << 20)
    assert bytes(heard) == own + b"b"
