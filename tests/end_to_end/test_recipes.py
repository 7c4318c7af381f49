"""The recipes for models of the Hub: each runs by the command in its head on small stand-ins."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration, evaluate_setting
from safetensors.torch import load_file
from support import checkpoints
from support.command import mergekit_yaml
from support.expected import assert_weights_merged, with_adapter
from support.stand_ins import StandIns, chat_template

from benchmarks.hub_models import NEW_TOKENS
from benchmarks.recipes import RECIPES, ROOT

TIES = "recipes/mistral/from-ties.yml"
ADAPTERS = "recipes/llama/four-adapters.yml"
CLASSIFIERS = "recipes/llama/six-classifiers.yml"
OWN_PARAMETER = {
    "drm": ("density", 0.2),
    "knots_ties": ("density", 1.0),
    "star": ("eta", 40.0),
    "iso": ("flatten", 0.75),
    "tsvm": ("share", 1.0),
    "actmat": ("rank_tolerance", 0.1),
}
"""The parameter that sets a method apart, and its default."""


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("hub"))


@pytest.mark.parametrize("path", RECIPES)
def test_runs_by_the_command_in_its_comment(path: str, stand_ins: StandIns, out: Path):
    text = (ROOT / path).read_text()
    _run_and_check(yaml.safe_load(text), _options(path, text), stand_ins, out)


@pytest.mark.parametrize("method", OWN_PARAMETER)
def test_one_word_changes_a_ties_recipe(method: str, stand_ins: StandIns, out: Path):
    text = (ROOT / TIES).read_text()
    before, after = _swap_in_readme()
    assert text.count(before) == 1
    assert method in after
    published = yaml.safe_load(text.replace(before, f"merge_method: {method}"))
    _run_and_check(published, _options(TIES, text), stand_ins, out)


@pytest.mark.parametrize("method", OWN_PARAMETER)
def test_one_word_changes_a_recipe_of_adapters(method: str, stand_ins: StandIns, out: Path):
    recipe = {**read(ADAPTERS), "merge_method": method}
    _run_and_check(recipe, [], stand_ins, out)


def test_classifiers_are_scored_with_their_own_heads(stand_ins: StandIns, out: Path):
    recipe = stand_ins.applied_to(read(CLASSIFIERS))
    mergekit_yaml(recipe, out)
    adapter = ModelReference.parse(recipe["models"][0]["model"]).lora
    assert adapter is not None
    factors = load_file(Path(adapter.path) / "adapter_model.safetensors")
    head = factors["base_model.model.score.weight"]

    model = transformers.LlamaForSequenceClassification.from_pretrained(out, num_labels=len(head))
    model.score.weight.data.copy_(head)
    merged = checkpoints.tensors(out)
    body = {f"model.{name}": tensor for name, tensor in model.model.state_dict().items()}
    assert merged.keys() - body.keys() == {"lm_head.weight"}
    assert all(torch.equal(tensor, merged[name].to(tensor)) for name, tensor in body.items())
    assert model(torch.tensor([[3, 4, 5]])).logits.isfinite().all()


def test_every_recipe_is_in_the_index():
    index = (ROOT / "recipes" / "README.md").read_text()
    linked = {f"recipes/{link}" for link in re.findall(r"\]\(([^)]+\.yml)\)", index)}
    assert set(RECIPES) == {link for link in linked if "smollm2" not in link}
    assert all((ROOT / link).exists() for link in linked)


@pytest.mark.parametrize("path", [path for path in RECIPES if path != TIES])
def test_starts_as_choosing_a_method_advises(path: str):
    """As the first table of docs/choosing.md says; five and ten adapters were measured."""
    recipe = read(path)
    count = len(recipe["models"])
    start = (recipe["merge_method"], recipe["parameters"]["lambda"])
    if not all("+" in entry["model"] for entry in recipe["models"]):
        assert count <= 4
        assert start == ("tsvm", 1.0)
    elif count <= 4:
        assert start == ("iso", 1.0)
    else:
        method, scale = start
        assert method == "iso"
        assert 0.2 <= scale <= 0.4


@pytest.mark.parametrize("path", [path for path in RECIPES if path != TIES])
def test_names_the_other_methods(path: str):
    text = (ROOT / path).read_text()
    ((method, others),) = re.findall(r"^merge_method: (\w+) # or (.*)$", text, re.MULTILINE)
    assert {method, *others.split(", ")} == set(OWN_PARAMETER)
    assert "\n# mergekit's own, to compare: task_arithmetic, ties" in text
    assert read(path)["parameters"]["weight"] == 1.0  # which mergekit's own methods require


@pytest.mark.parametrize("path", RECIPES)
def test_says_what_is_not_known(path: str):
    text = (ROOT / path).read_text()
    head = " ".join(line.removeprefix("#").strip() for line in text.split("\n\n")[0].splitlines())
    assert "Use: " in head
    assert re.search(r"Not checked\b.*Before you download: ", head)
    assert f"mergekit-spectral check {path} --hub" in head
    assert "No gain is promised" in head


def read(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / path).read_text())


def _swap_in_readme() -> tuple[str, str]:
    """The line of a TIES recipe that recipes/README.md changes, and what it becomes."""
    readme = (ROOT / "recipes" / "README.md").read_text()
    (diff,) = re.findall(r"```diff\n-(.*)\n\+(.*)\n```", readme)
    return diff


def _run_and_check(
    published: dict[str, Any], options: list[str], stand_ins: StandIns, out: Path
) -> None:
    """Merge by a recipe, and compare the result with the method's definition."""
    recipe = stand_ins.applied_to(published)
    mergekit_yaml(recipe, out, "--copy-tokenizer", *options)

    merged = checkpoints.tensors(out)
    base = checkpoints.tensors(Path(recipe["base_model"]))
    matrices = [name for name in merged if name.endswith("_proj.weight")]
    assert all(tensor.isfinite().all() for tensor in merged.values())
    assert any(not torch.equal(merged[name], base[name]) for name in matrices)
    _assert_keeps_its_tokens(out, published, merged)
    if recipe["merge_method"] != "ties":
        _assert_is_as_defined(recipe, matrices, base, merged)


def _options(path: str, text: str) -> list[str]:
    """The options of the command that a recipe's comment gives."""
    (command,) = re.findall(r"^#\s+(mergekit-yaml .*)$", text, re.MULTILINE)
    _program, recipe, out, *options = shlex.split(command)
    assert (recipe, out) == (path, "out/")
    return options


def _assert_keeps_its_tokens(
    out: Path, published: dict[str, Any], merged: dict[str, torch.Tensor]
) -> None:
    """Check the vocabulary, with the new tokens of the inputs where the recipe keeps them."""
    vocabulary = set(checkpoints.VOCABULARY)
    source = published.get("tokenizer", {}).get("source", published.get("tokenizer_source"))
    if source == "union":
        for entry in published["models"]:
            vocabulary.update(NEW_TOKENS.get(entry["model"], ()))
    config = transformers.AutoConfig.from_pretrained(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert set(tokenizer.get_vocab()) == vocabulary
    if "/" in (source or ""):
        assert tokenizer.chat_template == chat_template(source)
    assert len(merged["model.embed_tokens.weight"]) == config.vocab_size >= len(vocabulary)


def _assert_is_as_defined(
    recipe: dict[str, Any],
    matrices: list[str],
    base: dict[str, torch.Tensor],
    merged: dict[str, torch.Tensor],
) -> None:
    """Compare the layers' matrices with the definition, of inputs as mergekit reads them."""
    dtype = getattr(torch, recipe["dtype"])
    loaded = {name: tensor.to(dtype) for name, tensor in base.items()}
    tuned = []
    for reference in (ModelReference.parse(entry["model"]) for entry in recipe["models"]):
        if reference.lora:
            tuned.append(with_adapter(loaded, Path(reference.lora.path)))
        else:
            tuned.append(checkpoints.tensors(Path(reference.model.path)))
    assert_weights_merged(
        {name: merged[name] for name in matrices},
        {name: base[name] for name in matrices},
        tuned,
        recipe["merge_method"],
        lambda name: _parameters(recipe, name),
        dtype,
    )


def _parameters(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """What a recipe's parameters are for the weight `name`, in the definitions' words."""
    config = MergeConfiguration.model_validate(recipe)

    def each(parameter: str, default: float) -> list[float]:
        scopes = [(entry.parameters or {}, config.parameters or {}) for entry in config.models]
        return [_setting(parameter, default, name, *both) for both in scopes]

    own, default = OWN_PARAMETER[recipe["merge_method"]]
    values = each(own, default)
    shared = config.parameters or {}
    direction = {"direction": shared["direction"]} if "direction" in shared else {}
    return {
        "weights": each("weight", 1.0),
        "lam": _setting("lambda", 1.0, name, shared),
        own: values[0] if len(set(values)) == 1 else values,
        **direction,
    }


def _setting(parameter: str, default: float, name: str, *scopes: dict[str, Any]) -> float:
    """Resolve gradients and filters as mergekit does; the stand-ins have three layers."""
    position = int(re.search(r"layers\.(\d)", name)[1]) / 2
    for scope in scopes:
        if parameter in scope:
            return evaluate_setting(name, scope[parameter], position, validate=float)
    return default
