"""Short errands at the broker beside a running agent: a trial connection, and a question with its answer."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from edge_agent.contract.errors import BrokerError
from edge_agent.paho_client import PahoClient, ReasonCode, loop_once, new_client
from edge_agent.settings import MqttSettings


def try_broker(settings: MqttSettings, timeout: float) -> None:
    """Connect once and leave again, under another client id so that a running agent keeps its session.

    Raises:
        BrokerError: the broker refused, or was not reached in `timeout` seconds.
        ConfigurationError: the password or a certificate cannot be read.
    """
    trial = settings.model_copy(
        update={"client_id": f"{settings.effective_client_id}-check", "persistent_session": False}
    )
    client = new_client(trial, manual_ack=False)
    answer: list[ReasonCode] = []
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answer.append(reason)
    where = f"broker {trial.host}:{trial.port}"
    deadline = time.monotonic() + timeout
    client.connect_timeout = timeout
    try:
        client.connect(trial.host, trial.port)
        while not answer and time.monotonic() < deadline:
            if not loop_once(client, 0.1) and not answer:
                raise BrokerError(f"{where}: closed the connection (does it ask for TLS or a certificate?)")
    except (OSError, ValueError) as error:
        raise BrokerError(f"{where}: not reached ({error})") from error
    finally:
        client.disconnect()
    if not answer:
        raise BrokerError(f"{where}: no answer in {timeout:g} s")
    if answer[0].is_failure:
        raise BrokerError(f"{where}: refused ({answer[0]})")


def ask(
    settings: MqttSettings, topic: str, payload: bytes, is_answer: Callable[[bytes], bool], timeout: float
) -> bytes:
    """Publish a request and return the answer that comes on the same topic, which is cleared afterwards.

    Args:
        settings: broker and credentials; another client id is used, so that a running agent keeps its session.
        topic: of request and answer.
        payload: of the request.
        is_answer: tells the last answer from everything else on the topic.
        timeout: seconds for all of it.

    Raises:
        BrokerError: the broker refused or was not reached, or no answer came.
        ConfigurationError: the password or a certificate cannot be read.
    """
    own_id = f"{settings.effective_client_id}-ask-{uuid.uuid4().hex[:12]}"
    client = new_client(settings.model_copy(update={"client_id": own_id, "persistent_session": False}), False)
    refusal: list[str] = []
    answers: list[bytes] = []

    def on_connect(
        _client: PahoClient, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            refusal.append(f"refused ({reason})")
        else:
            client.subscribe(topic, 1)

    def on_subscribe(
        _client: PahoClient, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        if reasons[0].is_failure:
            refusal.append(f"refused to let {topic} be read ({reasons[0]})")
        else:
            client.publish(topic, payload, 1)

    def on_publish(_client: PahoClient, _data: Any, _mid: int, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            refusal.append(f"refused to let {topic} be written ({reason})")

    client.on_connect, client.on_subscribe, client.on_publish = on_connect, on_subscribe, on_publish
    client.on_message = lambda _client, _data, message: (
        answers.append(bytes(message.payload)) if is_answer(bytes(message.payload)) else None
    )
    where = f"broker {settings.host}:{settings.port}"
    deadline = time.monotonic() + timeout
    client.connect_timeout = timeout
    try:
        client.connect(settings.host, settings.port)
        while not (answers or refusal) and time.monotonic() < deadline:
            if not loop_once(client, 0.1) and not (answers or refusal):
                raise BrokerError(f"{where}: closed the connection (does it ask for TLS or a certificate?)")
        if answers:
            cleared = client.publish(topic, b"", 1, retain=True)
            while not cleared.is_published() and time.monotonic() < deadline:
                if not loop_once(client, 0.1):
                    break
    except (OSError, ValueError) as error:
        raise BrokerError(f"{where}: not reached ({error})") from error
    finally:
        client.disconnect()
    if answers:
        return answers[0]
    why = (
        refusal[0]
        if refusal
        else f"no answer of the agent in {timeout:g} s; does it run, with control.enabled?"
    )
    raise BrokerError(f"{where}: {why}")
