"""Tables and answers at the width of a terminal."""

from __future__ import annotations

import re

import pytest
from rich import console as rich_console

from mergekit_spectral.command_line import tables
from mergekit_spectral.command_line.tables import print_answers, print_table
from mergekit_spectral.inspecting.tables import HEADER

SHORT = ["numbers", "plurals", "sentiment"]
LONG = [
    "hoffman-lab/KnOTS-Llama3_8B_lora_R16_snli",
    "yophis/DRM-Llama-3.1-8B-banking77-and-some-more-tasks-of-the-same-kind",
    "Lots-of-LoRAs/Mistral-7B-Instruct-v0.2-4b-r16-task190",
]


@pytest.fixture(params=[80, 60, 200])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A terminal of this width."""
    monkeypatch.setattr(
        tables,
        "Console",
        lambda: rich_console.Console(
            width=request.param, force_terminal=True, color_system=None, legacy_windows=False
        ),
    )
    return int(request.param)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)


MIDDLE = [f"a-rather-long-adapter-name-{number}" for number in range(3)]


@pytest.mark.parametrize("names", [SHORT, MIDDLE, LONG])
def test_names_are_whole(names: list[str], width: int, capsys: pytest.CaptureFixture[str]):
    rows = [[name, "12.34", "105", "129.5", "1.5", "11.0"] for name in names]
    print_table("The inputs", HEADER[:6], rows, words=("input",))
    text = printed(capsys)
    assert "…" not in text
    for name in names:
        assert name in text
    # Only a name alone may be longer than a line.
    assert all(len(line) <= width or line in names for line in text.splitlines())
    for value in ("12.34", "129.5"):
        assert text.count(value) == len(names)


@pytest.mark.parametrize(("names", "least"), [(SHORT, 60), (MIDDLE, 80), (LONG, 200)])
def test_narrow_terminals_get_blocks(
    names: list[str], least: int, width: int, capsys: pytest.CaptureFixture[str]
):
    rows = [[name, "12.34", "105", "129.5", "1.5", "11.0"] for name in names]
    print_table("The inputs", HEADER[:6], rows, words=("input",))
    assert ("┃" in printed(capsys)) is (width >= least)


def test_long_names_are_broken_between_their_words(width: int, capsys: pytest.CaptureFixture[str]):
    names = ["base", "adapter sentiment", "tuned (iso, density 0.5 at λ = 0.779)"]
    header = ("model", "Spanish numbers", "plurals", "sentiment", "mean", "merge")
    rows = [[name, "71%", "58%", "93%", "74%", "129.0 s"] for name in names]
    print_table("Exact answers", header, rows, words=("model",))
    text = printed(capsys)
    assert all(len(line) <= width for line in text.splitlines())
    assert ("┃" in text) is (width >= 80)
    if width >= 80:
        cells = [line.split("│")[1].strip() for line in text.splitlines() if "│" in line]
        assert " ".join(cells) == " ".join(names)
        assert len(cells) == (3 if width == 200 else 4)


def test_words_wrap_beside_whole_names(width: int, capsys: pytest.CaptureFixture[str]):
    rows = [["knots_dare_ties", "a sentence that is longer than a narrow terminal is wide " * 2]]
    print_table("Methods", ("method", "what it does"), rows, words=("method", "what it does"))
    text = printed(capsys)
    assert "knots_dare_ties" in text
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())


def test_answers_wrap_beside_their_questions(width: int, capsys: pytest.CaptureFixture[str]):
    answer = "yes. The updates hardly overlap, so they neither cancel nor add up. " * 3
    print_answers("Merge with `iso`.", [("compatible", answer), ("drop", "none. `x` is needed.")])
    text = printed(capsys)
    assert text.startswith("Merge with iso.\n\n")
    assert "`" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert re.search(r"^compatible  yes\. The updates", text, re.M)


def test_a_pipe_gets_markdown(capsys: pytest.CaptureFixture[str]):
    print_table("The inputs", ("input", "norm"), [[LONG[0], "1"]], words=("input",), notes=["End."])
    print_answers("Merge with `iso`.", [("drop", "none")])
    text = capsys.readouterr().out
    assert f"| {LONG[0]} |    1 |" in text
    assert text.endswith("End.\n\nMerge with `iso`.\n\n- drop: none\n\n")


def test_a_pipe_with_a_width_gets_what_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    long = "a sentence that is longer than a narrow terminal is wide " * 3
    header, words = ("method", "scope", "what it does", "source"), ("method", "what it does")
    print_table("Methods", header, [["`drm`", "per input", long, "a/b" * 20]], words, [long])
    print_table("The inputs", ("input", "norm"), [["a", "1"]], words=("input",))
    print_answers("Merge with `iso`.", [("drop", long)])
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "  what it does  a sentence that is" in text
    assert "| a     |    1 |" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("columns", ["", "wide", "0"])
def test_a_width_that_is_none(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", columns)
    print_table("Methods", ("method", "what"), [["drm", "x" * 300]], words=("method", "what"))
    assert "x" * 300 in capsys.readouterr().out
