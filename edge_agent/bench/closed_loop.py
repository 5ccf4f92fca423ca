"""Publishing no faster than the agent scores: it always has work, and no queue of the broker runs over."""

from collections.abc import Sequence

from edge_agent.bench.relay import Relay
from edge_agent.bench.wire import Client

PATIENCE_SECONDS = 60.0
_UNDER_WAY = 2


class ClosedLoop:
    """Publishes in blocks, of which two are under way at most.

    The last message of a block alone asks for an acknowledgement, which speaks for all before it.

    Args:
        client: publishes.
        relay: hears the acknowledgements of the agent.
        block: messages; brokers keep a thousand for a client that is slow, unless told otherwise.
    """

    def __init__(self, client: Client, relay: Relay, block: int = 400) -> None:
        self._client = client
        self._relay = relay
        self._block = block
        self._asked = relay.answers

    def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish messages, and return when the agent is not far behind.

        Raises:
            BrokerError: the agent acknowledges nothing any more.
        """
        for at in range(0, len(messages), self._block):
            part = messages[at : at + self._block]
            self._client.publish(part[:-1])
            self._client.publish(part[-1:], qos=1)
            self._asked += 1
            self._relay.wait_for_answers(self._asked - _UNDER_WAY + 1, PATIENCE_SECONDS)

    def drain(self) -> None:
        """Return when the agent has acknowledged everything."""
        self._relay.wait_for_answers(self._asked, PATIENCE_SECONDS)
