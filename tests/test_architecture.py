"""Holds the rules R1 to R6 of docs/architecture.md on the source text, so that a lazy import counts like any other."""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("edge_agent", "trainer", "deploy")
DAEMON_MODULES_OF_THE_TRAINER = ("contract", "history", "forecaster", "detector", "version")
DETECTOR_MODULES = frozenset(
    f"edge_agent.{name}" for name in ("detector", "detector_state", "forecast_chain", "judge", "blame")
)
DOORS = {
    "paho": "edge_agent.paho_client",
    "onnxruntime": "edge_agent.forecaster",
    "onnxruntime.quantization": "trainer.quantize",
    "ai_edge_litert": "edge_agent.litert",
    "prometheus_client": "edge_agent.metrics",
    "polars": "edge_agent.history",
    "line_protocol_parser": "edge_agent.history_lines",
    "psycopg": "edge_agent.history_sql",
    "msgspec": "edge_agent.codecs",
    # Graphs are made behind one, several processors are shared behind another, LSTM layers are trained behind the last.
    "tensorflow": "trainer.export or trainer.devices or trainer.fast_lstm",
    "threadpoolctl": "trainer.fast_lstm",
    "tensorboardX": "trainer.watch",
    "torch": "trainer.devices",
    "keras": "trainer.backend",
    "matplotlib": "trainer.canvas",
    "jinja2": "trainer.report",
    "shap": "trainer.shapley",
    "optuna": "trainer.study",
}
TRAINING_ONLY = frozenset({"trainer", "tensorflow", "keras", "pandas"})
WORLDLY = frozenset(
    {"asyncio", "http", "logging", "paho", "prometheus_client", "socket", "ssl", "time", "urllib"}
)
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})
EMPTY_NAMES = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "managers"})
IMPORT_CALLS = frozenset({"import_module", "__import__"})


@dataclass(frozen=True)
class Source:
    """One parsed file; `module` is its dotted name, `imports` every module it names, at any depth."""

    module: str
    tree: ast.Module
    imports: frozenset[str]
    has_relative: bool


Sources = Mapping[str, Source]


def _named_in_call(node: ast.Call) -> Iterator[str]:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called in IMPORT_CALLS and node.args and isinstance(node.args[0], ast.Constant):
        yield str(node.args[0].value)


def _named_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        # `from package import name`: the name may be a module, so both are named.
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call):
        yield from _named_in_call(node)


def parse(module: str, text: str) -> Source:
    """Read one file's text; raises SyntaxError when it is not Python."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    imports = frozenset(name for node in nodes for name in _named_by(node))
    relative = any(isinstance(node, ast.ImportFrom) and node.level > 0 for node in nodes)
    return Source(module, tree, imports, relative)


def read_project() -> dict[str, Source]:
    """Every Python file of the packages by its dotted name; a package stands under its own name."""
    sources = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            sources[module] = parse(module, path.read_text(encoding="utf-8"))
    return sources


def within(module: str, package: str) -> bool:
    """Whether the module is the package or lies in it."""
    return module == package or module.startswith(package + ".")


def top(module: str) -> str:
    """The first part of a dotted name, by which a distribution is known."""
    return module.partition(".")[0]


def contract_reaches_out(sources: Sources) -> list[str]:
    """R1: what the contract imports beside the standard library, numpy and itself."""
    return [
        f"{source.module} imports {name}"
        for source in sources.values()
        if within(source.module, "edge_agent.contract")
        for name in source.imports
        if top(name) not in sys.stdlib_module_names
        and top(name) != "numpy"
        and not within(name, "edge_agent.contract")
    ]


def daemon_trains(sources: Sources) -> list[str]:
    """R2: what the daemon imports that belongs to training."""
    return [
        f"{source.module} imports {name}"
        for source in sources.values()
        if within(source.module, "edge_agent")
        for name in source.imports
        if top(name) in TRAINING_ONLY
    ]


def trainer_intrudes(sources: Sources) -> list[str]:
    """R3: what the trainer imports of the daemon beside the shared modules."""
    shared = tuple(f"edge_agent.{name}" for name in DAEMON_MODULES_OF_THE_TRAINER)
    return [
        f"{source.module} imports {name}"
        for source in sources.values()
        if within(source.module, "trainer")
        for name in source.imports
        if within(name, "edge_agent")
        and name != "edge_agent"
        and not any(within(name, module) for module in shared)
    ]


def other_doors(sources: Sources) -> list[str]:
    """R4: imports of a third-party library outside its one door; the demonstration is no part of the product."""
    return [
        f"{source.module} imports {name}, whose door is {door}"
        for source in sources.values()
        if not within(source.module, "deploy")
        for name in source.imports
        if (door := _door(name)) is not None and source.module not in door.split(" or ")
    ]


def _door(name: str) -> str | None:
    """Return what may import a library, one module as a rule; a part of it may have a door of its own."""
    library = next((part for part in DOORS if within(name, part) and "." in part), top(name))
    return DOORS.get(library)


def circles(sources: Sources) -> list[str]:
    """R5: a circle of imports, if there is one."""
    graph = {
        module: {name for name in source.imports if name in sources and not within(module, name)}
        for module, source in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        return [" → ".join(circle.args[1])]
    return []


def relative_imports(sources: Sources) -> list[str]:
    """R5: the files with an import that starts with a dot."""
    return [source.module for source in sources.values() if source.has_relative]


def _words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def empty_names(sources: Sources) -> list[str]:
    """R5: modules and classes whose name says only that something is in them."""
    named = [(source.module, part) for source in sources.values() for part in source.module.split(".")]
    named += [
        (source.module, node.name)
        for source in sources.values()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    ]
    return [f"{module}: {name}" for module, name in named if _words(name) & EMPTY_NAMES]


def _asks_the_clock(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_CALLS
    )


def worldly_core(sources: Sources) -> list[str]:
    """R6: where the contract or the detector reach for a clock, the network, metrics or a log."""
    core = [
        source
        for source in sources.values()
        if within(source.module, "edge_agent.contract") or source.module in DETECTOR_MODULES
    ]
    reached = [f"{s.module} imports {name}" for s in core for name in s.imports if top(name) in WORLDLY]
    asked = [f"{s.module} asks the clock" for s in core if any(map(_asks_the_clock, ast.walk(s.tree)))]
    return reached + asked


Rule = Callable[[Sources], list[str]]
RULES: list[Rule] = [
    contract_reaches_out,
    daemon_trains,
    trainer_intrudes,
    other_doors,
    circles,
    relative_imports,
    empty_names,
    worldly_core,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule: Rule) -> None:
    """No file of the project breaks a rule of the architecture."""
    assert rule(read_project()) == []


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        (contract_reaches_out, {"edge_agent.contract.a": "import scipy.stats"}),
        (contract_reaches_out, {"edge_agent.contract.a": "from edge_agent import metrics"}),
        (daemon_trains, {"edge_agent.a": "def lazy():\n    import trainer.fit"}),
        (daemon_trains, {"edge_agent.a": "import importlib\nimportlib.import_module('keras')"}),
        (trainer_intrudes, {"trainer.a": "from edge_agent.history_text import text_blocks"}),
        (trainer_intrudes, {"trainer.a": "from edge_agent import connection"}),
        (other_doors, {"edge_agent.agent": "from paho.mqtt import client"}),
        (other_doors, {"trainer.fit": "def lazy():\n    import tensorflow as tf"}),
        (other_doors, {"edge_agent.forecaster": "from onnxruntime.quantization import quantize_dynamic"}),
        (circles, {"trainer.a": "import trainer.b", "trainer.b": "def f():\n    from trainer import a"}),
        (relative_imports, {"trainer.a": "from . import b"}),
        (empty_names, {"trainer.file_utils": ""}),
        (empty_names, {"trainer.a": "class BundleManager: ..."}),
        (worldly_core, {"edge_agent.detector": "import time"}),
        (worldly_core, {"edge_agent.judge": "def lazy():\n    import logging"}),
        (worldly_core, {"edge_agent.contract.a": "from datetime import datetime\ndatetime.now()"}),
    ],
)
def test_a_rule_sees_what_breaks_it(rule: Rule, files: dict[str, str]) -> None:
    """Each rule reports a planted breach, lazy imports and imports by name included."""
    assert rule({module: parse(module, text) for module, text in files.items()})


def test_the_detector_is_where_the_rule_looks() -> None:
    """Each file that is called the detector's is there: one that is renamed would escape the rule in silence."""
    assert set(read_project()) >= DETECTOR_MODULES


def test_the_allowed_ways_stay_open() -> None:
    """What the rules allow is not reported: shared modules, doors, the standard library and numpy."""
    files = {
        "edge_agent.contract.a": "import json\nimport numpy as np\nfrom edge_agent.contract import types",
        "edge_agent.contract.types": "from dataclasses import dataclass",
        "edge_agent.history": "import polars",
        "trainer.a": "from edge_agent.history import read_history\nfrom edge_agent.contract.types import Rows",
        "trainer.export": "import tensorflow.keras",
    }
    sources = {module: parse(module, text) for module, text in files.items()}
    assert [breach for rule in RULES for breach in rule(sources)] == []
