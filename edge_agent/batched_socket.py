"""A socket between the network and paho: it reads much at a time, keeps readings for itself and gives paho the rest.

paho asks for a byte, then for another, then for the packet; here that costs no system call and happens only for packets
that are rare.
"""

import contextlib
import socket
import ssl

from edge_agent.packets import Messages, PacketSplitter

_READ_BYTES = 65_536
# So much a turn; what is scored meanwhile waits in the system's buffers.
_MOST_READS = 64


class BatchedSocket:
    """Wraps a connected, non-blocking socket, encrypted or not; what is not defined here is the socket's own.

    Args:
        real: the connection.
        newest: whether the protocol is MQTT 5.
    """

    def __init__(self, real: socket.socket, newest: bool) -> None:
        self._real = real
        self._splitter = PacketSplitter(newest)
        self._for_paho = bytearray()
        self._end: OSError | bytes | None = None
        self._unsent = b""
        # An SSL socket gives one record a read and may hold more of them.
        self._short_is_all = not isinstance(real, ssl.SSLSocket)

    def read(self, messages: Messages) -> bool:
        """Read what there is; readings are added to `messages`. Returns whether there may be more."""
        for _ in range(_MOST_READS):
            try:
                data = self._real.recv(_READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as error:
                self._end = error
                return False
            if not data:
                self._end = b""
                return False
            for packet in self._splitter.feed(data, messages):
                self._for_paho += packet
            if self._short_is_all and len(data) < _READ_BYTES:
                return False
        return True

    @property
    def has_news(self) -> bool:
        """Return whether there is something for paho: a packet, or the end of the connection."""
        return bool(self._for_paho) or self._end is not None

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes of packets for paho; raises BlockingIOError while there are none."""
        if self._for_paho:
            taken = bytes(self._for_paho[:size])
            del self._for_paho[:size]
            return taken
        if self._end is None:
            raise BlockingIOError
        if isinstance(self._end, OSError):
            raise self._end
        return self._end

    def send(self, data: bytes) -> int:
        """Send for paho, after what still waits of our own; raises BlockingIOError while that does not go."""
        self.flush()
        if self._unsent:
            raise BlockingIOError
        return self._real.send(data)

    def send_soon(self, data: bytes) -> None:
        """Send whole packets, or keep what does not go yet for `flush`."""
        self._unsent += data
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it goes; a broken connection shows when it is read."""
        if self._unsent:
            with contextlib.suppress(OSError):
                self._unsent = self._unsent[self._real.send(self._unsent) :]

    @property
    def has_unsent(self) -> bool:
        """Return whether something of our own waits to be sent."""
        return bool(self._unsent)

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._real.fileno()

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Pass on an option."""
        self._real.setsockopt(level, option, value)

    def setblocking(self, flag: bool) -> None:
        """Pass on whether calls wait."""
        self._real.setblocking(flag)

    def close(self) -> None:
        """Close the connection."""
        self._real.close()
