"""What `check` prints to be pasted cures what it has found."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml
from click.testing import CliRunner
from support import checkpoints
from support.command import mergekit_yaml
from support.planted_faults import Recipe, Workshop, checked, of_another_vocabulary, without
from support.recipe_builders import recipe as plain_recipe

from mergekit_spectral.checking.checks import Report
from mergekit_spectral.command_line.main import main
from mergekit_spectral.recipe.findings import Finding


def of_a_chat_model(shop: Workshop) -> Recipe:
    checkpoints.write_enlarged(shop.folder / "chat", checkpoints.llama(), "<|im_start|>")
    return shop.with_model(shop.folder / "chat")


def of_a_source_without_tokenizer(shop: Workshop) -> Recipe:
    source = {"source": str(shop.without_tokenizer()), "pad_to_multiple_of": 8}
    return {**shop.recipe(), "tokenizer": source}


def of_a_base_without_tokenizer(shop: Workshop, **keys: object) -> Recipe:
    return {**shop.recipe(), "base_model": str(shop.without_tokenizer()), **keys}


def of_dora(shop: Workshop) -> Recipe:
    adapter = shop.folder / "dora"
    checkpoints.write_adapter(adapter, checkpoints.llama(), 1, ["q_proj"], use_dora=True)
    return shop.lora_recipe(adapter=adapter)


def of_mergekits_own(shop: Workshop) -> Recipe:
    return {**shop.lora_recipe("ties"), "parameters": {"weight": 1.0}}


IN_RECIPE: dict[str, tuple[Callable[[Workshop], Recipe], str]] = {
    "vocabularies": (of_another_vocabulary, "the vocabularies differ"),
    "vocabularies with tokenizers": (of_a_chat_model, "the vocabularies differ"),
    "a source": (of_a_source_without_tokenizer, "has no tokenizer, but the recipe takes"),
    "an older source": (
        lambda shop: {**shop.recipe(), "tokenizer_source": str(shop.without_tokenizer())},
        "has no tokenizer, but the recipe takes",
    ),
    "dtype": (lambda shop: {**shop.recipe(), "dtype": "int8"}, "`dtype` must be"),
    "out_dtype": (lambda shop: {**shop.recipe(), "out_dtype": "int64"}, "`out_dtype` must be"),
    "a base": (lambda shop: without(shop.lora_recipe(), "base_model"), "needs a base model"),
}
"""Recipes that are cured by keys of theirs, and what is found."""


def find(report: Report, message: str) -> Finding:
    (found,) = (finding for finding in report.findings if message in finding.message)
    return found


def find_cure(report: Report, message: str) -> str:
    cure = find(report, message).cure
    assert cure is not None
    return cure


@pytest.mark.parametrize("name", IN_RECIPE)
def test_keys_of_the_recipe(name: str, workshop: Workshop):
    make, message = IN_RECIPE[name]
    recipe = make(workshop)
    report = checked(recipe, workshop.folder)
    assert report.failed
    keys = yaml.safe_load(find_cure(report, message))
    cured = checked({**recipe, **keys}, workshop.folder)
    assert not cured.failed
    assert cured.costs is not None
    assert not any(message in finding.message for finding in cured.findings)


def test_other_keys_of_the_tokenizer_are_kept(workshop: Workshop):
    report = checked(of_a_source_without_tokenizer(workshop), workshop.folder)
    cure = yaml.safe_load(find_cure(report, "has no tokenizer"))
    assert cure == {"tokenizer": {"source": "base", "pad_to_multiple_of": 8}}


def test_the_merge_runs_with_the_keys(workshop: Workshop):
    recipe = of_a_chat_model(workshop)
    keys = yaml.safe_load(find_cure(checked(recipe, workshop.folder), "the vocabularies differ"))
    merged = checkpoints.tensors(mergekit_yaml({**recipe, **keys}, workshop.folder / "out"))
    rows = {len(merged[name]) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    assert rows == {len(checkpoints.VOCABULARY) + 1}


@pytest.mark.parametrize("keys", [{}, {"tokenizer": {"source": "union"}}], ids=str)
def test_a_tokenizer_is_copied_to_the_base(keys: Recipe, workshop: Workshop):
    recipe = of_a_base_without_tokenizer(workshop, **keys)
    command = shlex.split(find_cure(checked(recipe, workshop.folder), "tokenizer"))
    assert command[0] == "cp"
    subprocess.run(command, check=True)
    assert checked(recipe, workshop.folder).findings == ()


def test_vision_models_need_no_tokenizer(workshop: Workshop):
    family = checkpoints.write_family(workshop.folder, checkpoints.vit(), count=1)
    findings = checked(plain_recipe("drm", family), workshop.folder).findings
    assert not any("tokenizer" in finding.message for finding in findings)


def test_a_tokenizer_of_another_size_is_not_copied(workshop: Workshop):
    recipe = {
        **of_a_base_without_tokenizer(workshop, tokenizer={"source": "union"}),
        "models": of_a_chat_model(workshop)["models"][-1:],
    }
    assert find(checked(recipe, workshop.folder), "tokenizer").cure is None


@pytest.mark.parametrize("make", [of_dora, of_mergekits_own], ids=["DoRA", "mergekit's own"])
def test_adapters_that_are_copied(make: Callable[[Workshop], Recipe], workshop: Workshop):
    recipe = make(workshop)
    report = checked(recipe, workshop.folder)
    assert report.failed
    command = shlex.split(find_cure(report, "needs --lora-merge-cache FOLDER"))
    path = str(workshop.folder / "recipe.yml")
    assert command[:2] == ["mergekit-yaml", path]
    assert command[-2] == "--lora-merge-cache"
    assert not checked(recipe, workshop.folder, lora_merge_cache=command[-1]).failed


CONFIGS: dict[str, tuple[str, dict[str, object], Callable[[dict[str, object]], bool]]] = {
    "quantized": (
        "has a `quantization_config`",
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        lambda config: "quantization_config" not in config,
    ),
    "tied": (
        "has an lm_head of its own",
        {"tie_word_embeddings": True},
        lambda config: config["tie_word_embeddings"] is False,
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_merged_configuration(name: str, workshop: Workshop):
    message, values, is_cured = CONFIGS[name]
    base = workshop.configured(workshop.family.base, **values)
    recipe = {**workshop.recipe(), "base_model": str(base)}
    recipe["models"] = recipe["models"][:1]
    merged = workshop.folder / "merged"
    merged.mkdir()
    command = shlex.split(find_cure(checked(recipe, merged), message))
    shutil.copy(base / "config.json", merged)
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], check=True)
    config = json.loads((merged / "config.json").read_text())
    assert is_cured(config)
    assert config["vocab_size"] == len(checkpoints.VOCABULARY)


def test_it_is_printed_below_the_finding(workshop: Workshop):
    path = workshop.folder / "recipe.yml"
    path.write_text(yaml.safe_dump(of_a_chat_model(workshop), sort_keys=False))
    output = CliRunner().invoke(main, ["check", str(path)]).output
    first, *block = output.splitlines()[:3]
    assert "error: the vocabularies differ" in first
    assert block == ["    tokenizer:", "      source: union"]
    output = CliRunner().invoke(main, ["check", str(path), "--json"]).output
    (found,) = json.loads(output)["findings"]
    assert found["cure"] == "tokenizer:\n  source: union"


def test_findings_that_the_recipe_does_not_cure(workshop: Workshop):
    report = checked(workshop.recipe(densty=0.5), workshop.folder)
    assert [finding.cure for finding in report.findings] == [None]
