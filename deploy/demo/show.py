"""The performance, step by step."""

import contextlib
import csv
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.demo.listener import Listener
from deploy.demo.plan import BUNDLE, EVENT_FILTER, HISTORY, LIVE, Plan, program, write_agent_config
from deploy.demo.processes import Children, DemoError, answers_ok, free_port, get, listens
from deploy.demo.report import clock, counted, event_lines, metric_lines, verdict

STEPS = 6
_METRICS_PORT = 9464
_STANDING_RPM = 100.0


class Show:
    """Everything on the stage.

    Args:
        plan: what is played.
        directory: for everything that is written.
        children: the processes.
    """

    def __init__(self, plan: Plan, directory: Path, children: Children) -> None:
        self._plan = plan
        self._directory = directory
        self._children = children
        self._begun = time.monotonic()
        self._step = 0
        self._broker_port = 0
        self._pages = ""

    def play(self, once: bool) -> None:
        """Play from the history to the alarm, and go on until Ctrl-C unless `once`.

        Raises:
            DemoError: a part failed, or the alarm did not come.
            KeyboardInterrupt: Ctrl-C before the alarm.
        """
        self._history()
        self._fit()
        self._broker()
        self._agent()
        with contextlib.closing(Listener(self._broker_port, EVENT_FILTER)) as listener:
            self._alarm(listener)
            self._metrics()
            if not once:
                with contextlib.suppress(KeyboardInterrupt):
                    self._stay(listener)

    def _stay(self, listener: Listener) -> None:
        self._say()
        self._say("Everything stays up until Ctrl-C, then it is stopped and the work directory removed.")
        self._say(f"From another terminal: curl {self._pages}/metrics")
        self._say(f"                       edge-agent check --config {self._directory}/edge-agent.toml")
        self._say()
        while True:
            event = listener.next_event(1.0)
            if event is not None:
                self._tell(event)
            self._children.check()

    def _history(self) -> None:
        plan = self._plan
        self._begin(
            f"Simulate {plan.history_hours:g} h of normal operation of a pump loop, a sample a second"
        )
        plan.write_trainer_config(self._directory)
        self._trainer(plan.simulate_history())
        self._say(
            f"The pump ran and came to {counted(stops(self._directory / HISTORY), 'stop')}: both are normal."
        )

    def _fit(self) -> None:
        self._begin("Learn from it how the sensors move together (about a minute on two cores)")
        self._say(
            "Look at: RMSE against persistence, and the threshold, which follows from normal data alone."
        )
        self._trainer(self._plan.fit())

    def _broker(self) -> None:
        self._begin("Start an MQTT broker of our own")
        self._broker_port = port = free_port()
        broker = self._children.start("broker", program("deploy.demo.broker", "--port", str(port)))
        self._children.wait_until(lambda: listens(port), broker, "broker", 30.0)
        self._say(f"process {broker.pid}, mqtt://127.0.0.1:{port}")

    def _agent(self) -> None:
        self._begin("Start the edge agent on the bundle")
        port = free_port(_METRICS_PORT)
        self._pages = f"http://127.0.0.1:{port}"
        config = write_agent_config(self._directory, self._broker_port, port).name
        self._show_command("edge-agent", "run", "--config", config)
        agent = self._children.start("agent", program("edge_agent.cli", "run", "--config", config))
        self._children.wait_until(lambda: answers_ok(f"{self._pages}/-/ready"), agent, "agent", 60.0)
        self._say(f"process {agent.pid}, ready: it loaded {BUNDLE}, ran its golden samples and subscribed.")

    def _alarm(self, listener: Listener) -> None:
        plan = self._plan
        self._begin(
            f"Play {plan.live_hours * 60:g} min it has never seen, {plan.rate:g} times as fast as life"
        )
        self._trainer(plan.simulate_live())
        stood = counted(stops(self._directory / LIVE, before_fault=True), "stop")
        self._say(
            f"Normal for {plan.fault_start_seconds / 60:g} min, {stood} and as many starts included; "
            f"then {plan.fault} for {plan.fault_seconds / 60:g} min."
        )
        self._say(f"Look at: no alarm before the fault; then what {EVENT_FILTER} brings.")
        self._children.start("publisher", program(*self._publisher()), log=False)
        self._wait_for_alarm(listener)

    def _publisher(self) -> Sequence[str]:
        return (
            "deploy.demo.publisher", "--port", str(self._broker_port), "--history", LIVE,
            "--rate", f"{self._plan.rate:g}",
        )  # fmt: skip

    def _wait_for_alarm(self, listener: Listener) -> None:
        plan = self._plan
        early = 0
        deadline = time.monotonic() + plan.deadline_seconds
        while time.monotonic() < deadline:
            event = listener.next_event(0.5)
            self._children.check()
            if event is None:
                continue
            self._tell(event)
            if event["kind"] == "start" and event["time_epoch"] >= plan.fault_start:
                self._say(verdict(event, plan.fault, plan.fault_start, plan.suspects))
                self._say(f"False alarms in the {plan.fault_start_seconds / 60:g} normal minutes: {early}.")
                return
            if event["kind"] == "start":
                early += 1
                self._say("That was before the fault: a false alarm.")
        raise DemoError(f"the alarm for {plan.fault} did not come within {plan.deadline_seconds:.0f} s")

    def _metrics(self) -> None:
        self._begin("See the same in Prometheus format")
        self._say(f"{self._pages}/metrics")
        for line in metric_lines(get(f"{self._pages}/metrics")[1]):
            self._say(f"  {line}")

    def _tell(self, event: dict[str, Any]) -> None:
        print()
        for line in event_lines(event):
            self._say(f"  {line}")
        print(flush=True)

    def _trainer(self, arguments: Sequence[str]) -> None:
        self._show_command("trainer", *arguments)
        self._children.run(f"trainer {arguments[0]}", program("trainer.cli", *arguments))

    def _show_command(self, *words: str) -> None:
        self._say(f"$ {shlex.join(words)}")

    def _begin(self, title: str) -> None:
        self._step += 1
        print(f"\n[{self._step}/{STEPS}] {clock(time.monotonic() - self._begun)}  {title}", flush=True)

    def _say(self, text: str = "") -> None:
        print(f"    {text}".rstrip(), flush=True)


def stops(path: Path, before_fault: bool = False) -> int:
    """Return how often the pump comes to a stand in a simulated file, on request only before its first fault."""
    count, running = 0, False
    for row in _rows(path):
        if before_fault and row["fault"]:
            break
        turns = float(row["speed_rpm"] or 0.0) > _STANDING_RPM
        count += running and not turns
        running = turns
    return count


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
