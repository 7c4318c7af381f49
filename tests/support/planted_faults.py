"""Recipes that are wrong in one place each, and what `check` is to find in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from mergekit.options import MergeOptions
from support import checkpoints
from support.checkpoints import Family
from support.recipe_builders import recipe as plain_recipe

from mergekit_spectral.checking.checks import check
from mergekit_spectral.checking.report import Report
from mergekit_spectral.recipe.findings import Finding
from mergekit_spectral.recipe.text import dotted

Recipe = dict[str, Any]
Fault = tuple[Callable[["Workshop"], Recipe | str], str, str, str]
"""How a recipe gets a fault, and the finding: severity, part of the message, key."""


class Workshop:
    """A family of models with an adapter, and room for broken copies of them.

    Attributes:
        family: three fine-tunes of a Llama.
        folder: of the test's own.
    """

    def __init__(self, family: Family, adapter: Path, folder: Path):
        self.family, self.adapter, self.folder = family, adapter, folder

    def recipe(self, method: str = "drm", **parameters: Any) -> Recipe:
        return plain_recipe(method, self.family, **parameters)

    def lora_recipe(self, method: str = "drm", adapter: Path | None = None) -> Recipe:
        path = f"{self.family.base}+{adapter or self.adapter}"
        return {**self.recipe(method), "models": [{"model": path}]}

    def copied(self, path: Path) -> Path:
        """A copy to break."""
        copy = self.folder / f"copy-of-{path.name}"
        shutil.copytree(path, copy)
        return copy

    def with_model(self, path: Path | str, **more: Any) -> Recipe:
        """A recipe with one model more."""
        recipe = self.recipe()
        return {**recipe, "models": [*recipe["models"], {"model": str(path), **more}]}

    def configured(self, path: Path, **values: Any) -> Path:
        """A copy with other values in its config.json, None to leave one out."""
        copy = self.copied(path)
        config = json.loads((copy / "config.json").read_text()) | values
        kept = {name: value for name, value in config.items() if value is not None}
        (copy / "config.json").write_text(json.dumps(kept))
        return copy

    def weighted(self, *weights: float | None) -> Recipe:
        """A TIES recipe with weights of the models' own."""
        models = [
            {"model": str(path), **({} if weight is None else {"parameters": {"weight": weight}})}
            for path, weight in zip(self.family.tuned, weights, strict=True)
        ]
        return {**self.recipe("ties"), "models": models}

    def cancelling(self, method: str) -> Recipe:
        """Two inputs whose weights sum to zero."""
        models = [
            {"model": str(path), "parameters": {"weight": weight}}
            for path, weight in zip(self.family.tuned, (1.0, -1.0), strict=False)
        ]
        recipe = {**self.recipe(method), "models": models}
        return without(recipe, "base_model") if method == "linear" else recipe

    def without_tokenizer(self) -> Path:
        copy = self.copied(self.family.base)
        for path in copy.glob("tokenizer*"):
            path.unlink()
        return copy

    def with_token(self, token: str, source: Any) -> Recipe:
        tokenizer = {"source": "base", "tokens": {token: {"source": source}}}
        return {**self.recipe(), "tokenizer": tokenizer}

    def slices_without_base(self) -> Recipe:
        recipe = self.slices([0, 3], [0, 3])
        return {**recipe, "slices": [{"sources": recipe["slices"][0]["sources"][1:]}]}

    def slices(self, *ranges: list[int], method: str = "drm") -> Recipe:
        """A recipe of one slice, with one source for each range."""
        models = (self.family.base, *self.family.tuned)
        sources = [
            {"model": str(model), "layer_range": layers}
            for model, layers in zip(models, ranges, strict=False)
        ]
        base = str(self.family.base)
        return {"merge_method": method, "base_model": base, "slices": [{"sources": sources}]}


def checked(recipe: Recipe | str, folder: Path, **options: Any) -> Report:
    path = folder / "recipe.yml"
    path.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe, sort_keys=False))
    return check(path, folder, MergeOptions(**options))


def without(recipe: Recipe, key: str) -> Recipe:
    return {name: value for name, value in recipe.items() if name != key}


def first_input(recipe: Recipe, **parameters: Any) -> Recipe:
    """Give the first model parameters of its own."""
    models = [{**recipe["models"][0], "parameters": parameters}, *recipe["models"][1:]]
    return {**recipe, "models": models}


def slerp(shop: Workshop, **parameters: float) -> Recipe:
    recipe = shop.recipe("slerp", **parameters)
    return {**recipe, "models": [{"model": str(shop.family.base)}, recipe["models"][0]]}


def in_modules(recipe: Recipe, **modules: str) -> Recipe:
    """Put the models of a recipe into modules."""
    own = {name: {kind: recipe[kind]} for name, kind in modules.items()}
    return {**without(recipe, "models"), "modules": own}


def quantize(tensors: dict[str, torch.Tensor]) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)


def truncated(copy: Path) -> Path:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    return copy


def numbered(copy: Path) -> Path:
    (copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": 3}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    return copy


def removed(copy: Path, name: str) -> Path:
    (copy / name).unlink()
    return copy


def with_garbage(shop: Workshop) -> Path:
    copy = removed(shop.copied(shop.family.tuned[0]), "model.safetensors")
    (copy / "pytorch_model.bin").write_bytes(b"garbage")
    return copy


def of_another_vocabulary(shop: Workshop) -> Recipe:
    checkpoints.llama(vocab_size=40).save_pretrained(shop.folder / "larger")
    return shop.with_model(shop.folder / "larger")


def of_another_width(shop: Workshop) -> Recipe:
    checkpoints.llama(intermediate_size=64).save_pretrained(shop.folder / "wider")
    return shop.with_model(shop.folder / "wider")


def of_more_layers(shop: Workshop) -> Recipe:
    checkpoints.llama(num_hidden_layers=4).save_pretrained(shop.folder / "deeper")
    return shop.with_model(shop.folder / "deeper")


def of_another_architecture(shop: Workshop) -> Recipe:
    checkpoints.fine_tuned(checkpoints.mistral(), 7).save_pretrained(shop.folder / "mistral")
    return shop.with_model(shop.folder / "mistral")


def with_foreign_adapter(shop: Workshop, **config: object) -> Recipe:
    foreign = checkpoints.llama(**config)
    checkpoints.write_adapter(shop.folder / "foreign", foreign, 1, ["q_proj"])
    return shop.lora_recipe(adapter=shop.folder / "foreign")


def repacked(shop: Workshop, change: Callable[[dict[str, Any]], None]) -> Recipe:
    """One model more, with changed tensors."""
    copy = shop.copied(shop.family.tuned[0])
    tensors = checkpoints.tensors(copy)
    change(tensors)
    checkpoints.write_tensors(copy, tensors)
    return shop.with_model(copy)


def assert_found(fault: Fault, workshop: Workshop) -> None:
    """Check a recipe with a fault, and require one finding, at the fault's line."""
    make, severity, message, key = fault
    report = checked(make(workshop), workshop.folder)
    found = [finding for finding in report.findings if message in finding.message]
    assert found, [finding.message for finding in report.findings]
    assert {(finding.severity, dotted(finding.key)) for finding in found} == {(severity, key)}
    # One fault is one finding, and no check stumbles over what another has found.
    assert report.findings == tuple(found)
    assert report.failed == (severity == "error")
    if key and "required" not in message:
        assert_line(found[0], workshop.folder / "recipe.yml")


def assert_line(finding: Finding, recipe: Path) -> None:
    """Require that a finding's line has its key, or an entry of a list."""
    name = dotted(finding.key).rsplit(".", 1)[-1].partition("[")[0]
    assert finding.line is not None
    lines = recipe.read_text().splitlines()
    near = lines[finding.line - 1]
    assert name in near or near.lstrip().startswith("- ")
