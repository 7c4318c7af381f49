"""The public functions: one for each command, cheap to import, and the page that shows them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import transformers
from support import checkpoints
from support.one_thread import one_thread as one_thread

import mergekit_spectral

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BASE = "meta-llama/Meta-Llama-3-8B"

transformers.utils.logging.disable_progress_bar()


def code_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page's code reads: small models under the names of large ones."""
    base = checkpoints.llama()
    base.save_pretrained(tmp_path / BASE)
    checkpoints.write_tokenizer(tmp_path / BASE)
    for seed, name in enumerate(("math", "code"), start=1):
        checkpoints.write_adapter(tmp_path / "adapters" / name, base, seed, ["q_proj", "up_proj"])
        examples = [{"prompt": word, "answer": word[::-1]} for word in ("abc", "bcd", "cde", "def")]
        lines = [json.dumps(example) for example in examples]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("one_thread")
def test_the_page_runs(work: Path, capsys: pytest.CaptureFixture[str]):
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in code_blocks():
        # Whether workers start is tested elsewhere, and takes seconds.
        exec(block.replace("workers=2", "workers=1"), names)
    assert (work / "merged" / "model.safetensors").exists()
    assert (work / "merged-tuned" / "config.json").exists()
    assert (work / "adapters" / "merged" / "adapter_config.json").exists()
    printed = capsys.readouterr().out
    assert "recipe: runs." in printed
    assert "merge_method: " in printed


def test_recipes_are_the_same_in_every_form(work: Path):
    text, mapping = (names for names in recipes() if not str(names).endswith(".yml"))
    path = work / "recipe.yml"
    path.write_text(text)
    from mergekit.config import MergeConfiguration

    config = MergeConfiguration.model_validate(mapping)
    models = [{"model": Path(entry["model"])} for entry in mapping["models"]]
    forms = (path, str(path), text, mapping, {**mapping, "models": models}, config)
    reports = [mergekit_spectral.check(recipe, work / "out") for recipe in forms]
    for report in reports:
        assert repr(report).endswith(": runs.")
        assert report.findings == reports[0].findings
        assert report.costs is not None
        assert report.costs.tensors == len(checkpoints.llama().state_dict())
    assert [report.recipe for report in reports] == [path, path, *[Path("recipe")] * 4]


def recipes() -> list[Any]:
    """Return the recipes of the page's first block."""
    names: dict[str, Any] = {}
    found = []
    for part in re.split(r"\n(?=recipe = |base = )", code_blocks()[0]):
        exec(part, names)
        if names.get("recipe") not in found:
            found.append(names["recipe"])
    return found


def test_a_report_shows_lines_and_messages(work: Path):
    _, text, mapping = recipes()
    report = mergekit_spectral.check({**mapping, "parameters": {"densty": 0.5, "a<b": 1}})
    lines = text.splitlines()
    assert len(lines) > 4
    first = report.findings[0]
    assert (first.severity, first.line) == ("warning", 7)
    assert f"recipe:7: warning: {first.message}" in repr(report).splitlines()
    html = report._repr_html_()
    assert "<td>7</td><td>warning</td>" in html
    assert "a&lt;b" in html
    assert "<b>recipe: runs.</b>" in html
    broken = mergekit_spectral.check({"merge_method": "drm", "base_model": object()})
    assert "a value that YAML does not have" in repr(broken)
    assert repr(broken).endswith("recipe: fails.")


@pytest.mark.usefixtures("one_thread")
def test_inspect_writes_nothing_without_a_folder(work: Path):
    before = sorted(work.rglob("*"))
    report = mergekit_spectral.inspect(recipes()[2], sample=1)
    assert sorted(work.rglob("*")) == before
    assert report.recipe is not None
    assert repr(report).startswith(report.verdict.headline)
    html = report._repr_html_()
    assert f"<pre>{report.recipe}</pre>".replace("'", "&#x27;") in html
    assert html.count("<tr>") == 3
    for tag in ("p", "b", "ul", "li", "pre", "table", "tr", "td", "th", "code"):
        assert html.count(f"<{tag}>") == html.count(f"</{tag}>")


@pytest.mark.parametrize("name", ["check", "inspect", "merge", "tune"])
def test_a_missing_recipe_is_a_sentence(name: str, work: Path):
    function = getattr(mergekit_spectral, name)
    arguments = {"merge": ["out"], "tune": [["math.jsonl"]]}.get(name, [])
    with pytest.raises(mergekit_spectral.MergeError, match=r"Recipe nowhere.yml not found"):
        function("nowhere.yml", *arguments)
    assert not (work / "out").exists()


def test_errors_of_a_recipe_without_a_file_name_no_command(work: Path):
    with pytest.raises(mergekit_spectral.MergeError) as refusal:
        mergekit_spectral.merge({**recipes()[2], "merge_method": "drn"}, "out")
    assert refusal.value.message == "recipe:1: there is no merge method drn; did you mean drm?"


def test_public_names_are_sorted_documented_and_typed():
    names = mergekit_spectral.__all__
    assert names == sorted(names)
    assert set(names) <= set(dir(mergekit_spectral))
    page = PAGE.read_text("utf-8")
    for name in names:
        public = getattr(mergekit_spectral, name)
        assert public.__name__ == name
        assert f"`{name}`" in (mergekit_spectral.__doc__ or "")
        assert f"`{name}`" in page or f"`mergekit_spectral.{name}`" in page
        if not isinstance(public, type):
            hints = get_type_hints(public)
            arguments = public.__code__.co_varnames[: public.__code__.co_argcount]
            assert {"return", *arguments} <= hints.keys()
            for argument in arguments:
                assert f"\n        {argument}: " in public.__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mergekit_spectral.nothing  # noqa: B018


def test_a_public_name_imports_only_what_it_needs():
    code = (
        "import sys, mergekit_spectral\n"
        "mergekit_spectral.MergeError\n"
        "print(*{'torch', 'mergekit', 'transformers', 'peft'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
