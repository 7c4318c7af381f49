"""Every recipe for Llama and Mistral, run by the command in its comment on small stand-ins."""

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
from support import checkpoints
from support.command import mergekit_yaml
from support.expected import assert_weights_merged, with_adapter
from support.stand_ins import NEW_TOKENS, StandIns

ROOT = Path(__file__).parents[2]
FOLDERS = ("llama", "mistral")
RECIPES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / "recipes" / folder).rglob("*.yml")
)
TIES = "recipes/mistral/full/ties.yml"
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


def test_every_recipe_is_in_the_index():
    index = (ROOT / "recipes" / "README.md").read_text()
    linked = {f"recipes/{link}" for link in re.findall(r"\]\(([^)]+\.yml)\)", index)}
    assert set(RECIPES) <= linked
    assert all((ROOT / link).exists() for link in linked)


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("method", OWN_PARAMETER)
def test_every_method_has_a_recipe(family: str, kind: str, method: str):
    recipe = yaml.safe_load((ROOT / "recipes" / family / kind / f"{method}.yml").read_text())
    assert recipe["merge_method"] == method
    assert all(("+" in entry["model"]) == (kind == "lora") for entry in recipe["models"])


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
