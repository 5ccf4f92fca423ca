"""The README is held against the program: the settings, metrics, options and commands that it names exist."""

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import edge_agent.cli
import trainer.cli
from edge_agent.board import AssetBoard
from edge_agent.events import BundleIdentity
from edge_agent.metrics import AgentMetrics, Facts
from edge_agent.settings import Settings
from edge_agent.tally import Tally
from tests.test_settings import setting_defaults

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARSERS = {"trainer": trainer.cli._parser, "edge-agent": edge_agent.cli._parser}


def _section(title: str) -> str:
    found = re.search(rf"^#+ {title}$(.*?)(?=^#)", README, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found.group(1)


def _first_cells(section: str) -> list[list[str]]:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.MULTILINE)
    return [[cell.strip() for cell in row] for row in rows]


def _commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.split(" ")[0] in PARSERS]


def _exposed() -> set[str]:
    bundle = BundleIdentity("pump", "1", "ab")
    facts = Facts(bundle, "cpu", ("flow",), 3.5, 10.0, 1000.0, 2)
    text = AgentMetrics(facts, Tally(), AssetBoard(1), ["p1"], dict).exposition().decode()
    names = re.findall(r"^# TYPE (forewarn_\w+) \w+$", text, re.MULTILINE)
    return {name for name in names if not name.endswith("_created")}


def test_settings_table_holds_every_key_with_its_default() -> None:
    """The README lists exactly the keys of the settings class, each with its default as TOML writes it."""
    written = {key.strip("`"): default for key, default in _first_cells(_section("Settings"))}
    known = setting_defaults(Settings)
    assert set(written) == set(known)
    for key, default in known.items():
        if default is not None and default is not ...:
            assert written[key] == json.dumps(default), key


def test_metrics_table_holds_every_metric() -> None:
    """The README names exactly the metrics that the agent exposes."""
    cells = _first_cells(_section("Metrics"))
    written = {name for cell, _ in cells for name in re.findall(r"`(\w+)`", cell)}
    assert {f"forewarn_{name}" for name in written} == _exposed()


def test_fit_options_exist() -> None:
    """Each option in the README's table is one of `trainer fit`."""
    options = {
        option for cell, _ in _first_cells(_section("Train")) for option in re.findall(r"--[a-z-]+", cell)
    }
    assert options
    parser: Any = trainer.cli._parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    known = set(commands.choices["fit"]._option_string_actions)
    assert options <= known


@pytest.mark.parametrize("line", _commands())
def test_every_command_is_understood(line: str) -> None:
    """Each command line of the README is one that its program accepts."""
    program, *words = shlex.split(line)
    assert PARSERS[program]().parse_args(words).command is not None


def test_every_source_file_has_its_line_in_the_architecture() -> None:
    """The ownership table names every source file of the two programs."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("## Who owns what") :]
    for path in [*(ROOT / "edge_agent").rglob("*.py"), *(ROOT / "trainer").rglob("*.py")]:
        assert path.name == "__init__.py" or path.name in table, path.name
