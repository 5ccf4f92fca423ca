"""Laws of the report: one page that says all, fetches nothing, and can be read on a phone, a screen and paper."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, open_browser
from tests.commands import edited, run, table
from tests.tiny_machine import SENSORS, TINY_BUNDLE
from trainer.cli import main

MOST_BYTES = 2_000_000
HOSTILE = "<script>alert(1)</script>"
"""The id of an asset: whoever writes a history must not write into the page."""
CONTRAST = """
(() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parts(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  let least = 21;
  for (const node of document.querySelectorAll('body *')) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
    const [a, b] = [light(parts(getComputedStyle(node).color).slice(0, 3)), light(behind(node))];
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
})()
"""


def _crossval() -> dict[str, Any]:
    figures = {"rmse": 0.5, "mae": 0.4, "rmse_spread": 0.1, "mae_spread": 0.1}
    nothing = dict.fromkeys(figures)
    fold = {name: {"rmse": 0.5, "mae": 0.4, "sensors": []} for name in ("forecaster", "ridge", "persistence")}
    return {
        "contenders": {"forecaster": figures, "ridge": figures, "persistence": figures, "seasonal": nothing},
        "verdict": "The LSTM is not worth it here.",
        "folds": [
            {"fold": 1, "first_time": 0.0, "trained_samples": 10, **fold, "seasonal": {"rmse": None}},
            {"fold": 2, "first_time": 9.0, "trained_samples": 20, **fold, "seasonal": {"rmse": None}},
        ],
    }


def _words(folder: Path, out: Path) -> list[str]:
    words = ["report", "--bundle", TINY_BUNDLE, "--history", folder / "pump.csv", "--out", out]
    words += ["--crossval", folder / "crossval.json", "--asset-column", "asset", "--label-column", "label"]
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all its parts, on a history with a fault, labels, a hole and an asset of a hostile name."""
    folder = tmp_path_factory.mktemp("report")

    def edit(rows: list[list[str]]) -> None:
        fault = table(400, (200, 260))
        rows[:] = fault
        for number, row in enumerate(rows):
            row.insert(1, "asset" if number == 0 else HOSTILE)
            row.append("label" if number == 0 else str(int(200 <= number - 1 < 260)))
        rows[40][2] = ""

    history, crossval, out = folder / "pump.csv", folder / "crossval.json", folder / "report.html"
    history.write_bytes(edited(edit))
    crossval.write_text(json.dumps(_crossval()), encoding="utf-8")
    assert main(_words(folder, out)) == 0
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    with open_browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_every_window(page: Path, browser: Browser, width: int) -> None:
    """On a phone and on a screen nothing reaches beyond the window, and every picture is drawn and within it."""
    browser.open(page, width, mobile=width < 500)
    assert browser.value("window.innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    shown = browser.value(
        "[...document.images].map((i) => [i.complete && i.naturalWidth > 0, i.getBoundingClientRect().right])"
    )
    assert len(shown) == 1 + 2 * len(SENSORS) + 2 + 1 + 1
    assert all(drawn and right <= width for drawn, right in shown)


def test_the_page_fetches_nothing_and_complains_of_nothing(page: Path, browser: Browser) -> None:
    """The browser asks for the file and for what the file holds, and its console stays empty."""
    browser.requested.clear()
    browser.open(page, 1280)
    assert page.as_uri() in browser.requested
    assert {address.split(":")[0] for address in browser.requested} == {"file", "data"}
    assert [address for address in browser.requested if address.startswith("file")] == [page.as_uri()]
    assert browser.complaints == []


def test_the_page_can_be_printed(page: Path, browser: Browser) -> None:
    """On the width of a sheet nothing is cut off, what serves a screen only is gone, and there are pages."""
    browser.open(page, 688)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.value("document.documentElement.scrollWidth") <= 688
    overflowing = (
        "[...document.querySelectorAll('.scroll')].filter((s) => s.scrollWidth > s.clientWidth + 1).length"
    )
    assert browser.value(overflowing) == 0
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.call("Emulation.setEmulatedMedia", media="")
    printed = browser.pdf()
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") >= 3


def test_the_page_can_be_read_by_everyone(page: Path, browser: Browser) -> None:
    """Every picture has a text, headings skip no level, tables have headers, and text stands out from its ground."""
    browser.open(page, 1280)
    assert browser.value("[...document.images].every((i) => i.alt.length > 20)")
    levels = browser.value("[...document.querySelectorAll('h1,h2,h3')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - before <= 1 for before, later in pairwise(levels))
    assert browser.value("[...document.querySelectorAll('table')].every((t) => t.querySelector('th[scope]'))")
    assert browser.value(CONTRAST) >= 4.5
    assert browser.value("document.documentElement.lang") == "en"


def test_the_page_holds_every_part(page: Path, browser: Browser) -> None:
    """All parts are there by their headings, with what was given beside them."""
    browser.open(page, 1280)
    headings = browser.value("[...document.querySelectorAll('h2')].map((h) => h.textContent)")
    assert headings == [
        "Scores and alarms", "Forecast", "Attribution", "Threshold", "Data quality", "Cross-validation", "Bundle",
    ]  # fmt: skip
    said = browser.value("document.body.textContent")
    assert "The LSTM is not worth it here." in said
    assert "1 × missing value" in said
    assert "Labelled events found" in said


def test_names_in_a_history_stay_names(page: Path, browser: Browser) -> None:
    """An asset whose id is markup is shown as text: the page has no script."""
    browser.open(page, 1280)
    assert browser.value("document.scripts.length") == 0
    assert HOSTILE in browser.value("document.querySelector('#scores ~ div h3').textContent")


def test_the_page_is_small_and_always_the_same(page: Path, tmp_path: Path) -> None:
    """A report is under 2 MB, and the same bundle and history give the same bytes."""
    assert main(_words(page.parent, tmp_path / "again.html")) == 0
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    assert page.stat().st_size < MOST_BYTES


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--crossval", "none.json"), "--crossval none.json: No such file"),
        (("--crossval", "{folder}/odd.json"), "is not what trainer crossval --json printed"),
        (("--explain", "{folder}/broken.json"), "is no JSON"),
        (("--out", "{folder}/none/report.html"), "must be a file in a directory that exists"),
    ],
)
def test_the_command_refuses_in_one_line(
    words: tuple[str, ...], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be shown or written is told before anything is read."""
    (tmp_path / "odd.json").write_text("{}", encoding="utf-8")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    words = tuple(word.format(folder=tmp_path) for word in words)
    said = run(
        main, capsys, "report", "--bundle", TINY_BUNDLE, "--history", "none.csv", "--out", tmp_path / "r.html", *words
    )  # fmt: skip
    assert said.code == 2
    assert rule in said.refusal()


def test_a_history_without_a_score_gives_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A history of stretches too short for a single score is refused by its name."""
    path = tmp_path / "short.csv"

    def edit(rows: list[list[str]]) -> None:
        del rows[25:]
        for number, row in enumerate(rows[1:]):
            row[0] = str(int(row[0]) + number // 6 * 1000)

    path.write_bytes(edited(edit))
    said = run(
        main, capsys, "report", "--bundle", TINY_BUNDLE, "--history", path, "--out", tmp_path / "r.html"
    )
    assert said.code == 1
    assert said.out == ""
    assert "no sample has a score" in said.err.splitlines()[-1]
