"""The worked example is held against the program: its commands are understood, and in short form they run."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import trainer.cli
from tests.commands import run

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "worked-example.md").read_text(encoding="utf-8")
SHORT = {"--hours": "12", "--units": "4,3,2", "--epochs": "1"}
"""What makes a run short; all else stays as the document has it."""


def _lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def _shortened(words: list[str]) -> list[str]:
    return [SHORT.get(before, word) for before, word in zip(["", *words], words, strict=False)]


@pytest.mark.parametrize("line", _lines())
def test_every_command_is_understood(line: str) -> None:
    """Each line is a command of the trainer that it accepts, or one of the shell that every Linux has."""
    program, *words = shlex.split(line)
    assert program in ("trainer", "cut")
    if program == "trainer":
        assert trainer.cli._parser().parse_args(words).command is not None


def test_the_example_is_what_it_says() -> None:
    """Every training has the network, the window and the epochs that the text speaks of, and README leads there."""
    trained = [line for line in _lines() if line.startswith(("trainer fit", "trainer crossval"))]
    assert len(trained) >= 3
    for line in trained:
        for words in ("--window 60", "--units 128,64,32", "--epochs 200"):
            assert words in line, line
    assert "docs/worked-example.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_in_short_form_the_commands_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours instead of a week, a tiny network and one epoch: each command ends well and leaves what the next reads."""
    monkeypatch.chdir(tmp_path)
    for line in _lines():
        program, *words = shlex.split(line)
        if program == "trainer":
            said = run(trainer.cli.main, capsys, *_shortened(words))
            assert said.code == 0, (line, said.err)
        else:
            subprocess.run(["bash", "-c", line], check=True)
