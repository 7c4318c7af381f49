import io
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from mergekit_spectral.command_line import demo as command
from mergekit_spectral.command_line import demo_run
from mergekit_spectral.command_line.demo_run import Steps, print_rows
from mergekit_spectral.command_line.main import main
from mergekit_spectral.demo import MODEL_NAME, RECORD
from mergekit_spectral.demo.recipes import read_tasks, run_recipe
from mergekit_spectral.demo.run import Row
from mergekit_spectral.errors import MergeError


def test_names_the_extra_when_it_is_missing(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert result.output == (
        'Error: the demo needs the extra `demo`: run `pip install ".[demo]"` in a clone of '
        "mergekit-spectral\n"
    )


def test_leaves_a_folder_with_files_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    result = CliRunner().invoke(main, ["demo", "--work-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", [RECORD, MODEL_NAME.split("/")[0]])
def test_takes_a_folder_of_an_earlier_demo(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / name).mkdir()
    started = []
    monkeypatch.setattr(demo_run, "run_and_print", lambda folder, _: started.append(folder))
    result = CliRunner().invoke(main, ["demo", "--work-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert started == [tmp_path.resolve()]


def test_a_merge_that_fails_shows_what_mergekit_said(tmp_path: Path):
    recipe = tmp_path / "wrong.yml"
    recipe.write_text("merge_method: tise\nmodels: [{model: some/model}]\n")
    with pytest.raises(MergeError) as failure:
        run_recipe(recipe, tmp_path / "out", tmp_path)
    assert failure.value.message.startswith("mergekit-yaml failed on wrong.yml:\n")
    assert "tise" in failure.value.message


def test_steps_are_numbered_and_timed():
    text = io.StringIO()
    steps = Steps(Console(file=text, width=80), total=12)
    with steps.step("the first"):
        pass
    with steps.step("the second"):
        pass
    first, second = text.getvalue().splitlines()
    assert re.fullmatch(r"\[ 1/12\] the first \d+\.\d s", first)
    assert re.fullmatch(r"\[ 2/12\] the second \d+\.\d s", second)


def test_table_has_a_line_for_each_model(capsys: pytest.CaptureFixture[str]):
    rows = [
        Row("base", (0.0, 0.25, 0.5)),
        *(Row(f"adapter {name}", (1.0, 1.0, 1.0)) for name in "abc"),
        Row("star", (0.3, 0.6, 0.9), seconds=12.34),
    ]
    print_rows(rows, read_tasks(), seconds=99.6)
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "| base | 0% | 25% | 50% | 25% | |" in lines
    assert "| star | 30% | 60% | 90% | 60% | 12.3 s |" in lines
    assert "100 s" in printed
