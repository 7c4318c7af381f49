"""The notebook: as it is stored, and with its code run on small models."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import peft
import pytest
import torch
import transformers
from mergekit.architecture.auto import infer_architecture_info
from mergekit.io.tasks import LoaderCache
from nbformat import NotebookNode
from support import checkpoints
from support.one_thread import one_thread as one_thread

from mergekit_spectral.demo import MODEL_NAME
from mergekit_spectral.demo.recipes import ADAPTERS

PATH = Path(__file__).parents[1] / "docs" / "notebooks" / "merge.ipynb"


@pytest.fixture(scope="module")
def notebook() -> NotebookNode:
    return nbformat.read(PATH, as_version=4)


def code_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def test_is_valid_small_and_was_run_from_top_to_bottom(notebook: NotebookNode):
    nbformat.validate(notebook)
    assert PATH.stat().st_size < 300_000
    cells = list(code_cells(notebook))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"stream", "execute_result"}
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell.outputs)


def test_names_no_folder_of_the_machine_that_ran_it():
    text = PATH.read_text("utf-8")
    # A slash at the beginning of a word, but not of a closing HTML tag.
    assert not re.findall(r"(?<![\w.:<>/\\-])/(?:\w+/)+\w*", text)
    assert "\\\\" not in text.replace("\\\\n", "")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a small base and small adapters under the names of the notebook's."""
    # mergekit remembers the tensors of models by their names, which other tests use too.
    infer_architecture_info.cache_clear()
    LoaderCache().loaders.clear()
    base = checkpoints.llama().bfloat16()
    base.save_pretrained(tmp_path / MODEL_NAME)
    checkpoints.write_tokenizer(tmp_path / MODEL_NAME)
    (tmp_path / MODEL_NAME / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    for seed, name in enumerate(ADAPTERS, start=1):
        targets = ["q_proj", "up_proj"]
        checkpoints.write_adapter(tmp_path / "adapters" / name, base.float(), seed, targets)
    monkeypatch.chdir(tmp_path)
    verbosity = transformers.utils.logging.get_verbosity()
    yield tmp_path
    transformers.utils.logging.set_verbosity(verbosity)


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does, and return the value of its last line if it has one."""
    *lines, last = ast.parse(source).body
    exec(compile(ast.Module(lines, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return None


@pytest.mark.usefixtures("one_thread")
def test_the_code_runs(notebook: NotebookNode, work: Path, capsys: pytest.CaptureFixture[str]):
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in code_cells(notebook):
        value = run(cell.source, names)
        printed = capsys.readouterr().out
        stored = {output.output_type: output for output in cell.outputs}
        assert bool(printed) == ("stream" in stored)
        assert (value is not None) == ("execute_result" in stored)
        if value is not None:
            assert value._repr_html_().count("<tr>") > 0
            assert "<tr>" in stored["execute_result"].data["text/html"]
    model = names["model"]
    assert isinstance(model, peft.PeftModel)
    assert model.active_adapters == ["all"]
    tuned = checkpoints.tensors(work / "tuned-model")
    base = checkpoints.tensors(work / MODEL_NAME)
    changed = {name for name, tensor in tuned.items() if not torch.equal(tensor, base[name])}
    assert changed
    assert all(name.endswith(("q_proj.weight", "up_proj.weight")) for name in changed)
