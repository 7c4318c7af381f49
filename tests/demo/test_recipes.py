import json
import re

import pytest
import yaml
from mergekit.config import MergeConfiguration
from peft import LoraConfig, PeftModel, load_peft_weights
from transformers import LlamaConfig, LlamaForCausalLM

from mergekit_spectral.demo import MODEL_NAME
from mergekit_spectral.demo.recipes import ADAPTERS, METHODS, TO_TUNE, read_tasks, recipe_folder
from mergekit_spectral.demo.run import TUNED, TUNED_METHODS
from mergekit_spectral.tuning.examples import Question, read_data_set

FOLDER = recipe_folder()

every_adapter = pytest.mark.parametrize("name", ADAPTERS)
every_method = pytest.mark.parametrize("method", METHODS)


def read_recipe(method: str) -> str:
    return (FOLDER / f"{method}.yml").read_text()


def test_recipes_differ_in_the_method_alone():
    recipes = {method: yaml.safe_load(read_recipe(method)) for method in METHODS}
    for method, recipe in recipes.items():
        assert recipe.pop("merge_method") == method
        assert recipe == {k: v for k, v in recipes["ties"].items() if k != "merge_method"}


@every_method
def test_recipe_is_one_that_mergekit_accepts(method):
    config = MergeConfiguration.model_validate(yaml.safe_load(read_recipe(method)))
    adapters = [m.model.lora.path for m in config.models]
    assert adapters == [f"adapters/{name}" for name in ADAPTERS]
    assert config.base_model.model.path == MODEL_NAME


@every_method
def test_recipe_opens_with_its_own_command(method):
    comment = re.match(r"(#.*\n)+", read_recipe(method)).group()
    assert f"mergekit-yaml {method}.yml" in comment


def test_there_are_examples_for_each_adapter():
    for name, task in zip(ADAPTERS, read_tasks(), strict=True):
        assert task.data.name == name
        to_tune = read_data_set(FOLDER / TO_TUNE / f"{name}.jsonl")
        assert len(task.data.examples) == 100
        assert len(to_tune.examples) == 40
        for example in (*task.data.examples, *to_tune.examples):
            assert isinstance(example, Question)
            assert re.fullmatch(r"The .+ is", example.prompt)
            assert re.fullmatch(r" .+\.", example.answer)
        assert set(task.data.examples).isdisjoint(to_tune.examples)


def test_recipe_to_tune_has_a_command_that_names_the_examples():
    comment = re.match(r"(#.*\n)+", read_recipe(TUNED)).group().replace("\n#", " ")
    words = " ".join(comment.replace("\\", " ").split())
    data = " ".join(f"--data {TO_TUNE}/{name}.jsonl" for name in ADAPTERS)
    methods = ",".join(TUNED_METHODS)
    assert f"mergekit-spectral tune {TUNED}.yml --methods {methods} {data}" in words


def test_adapters_are_small():
    files = (FOLDER / "adapters").rglob("*")
    assert sum(file.stat().st_size for file in files if file.is_file()) < 8_000_000


@every_adapter
def test_adapter_names_the_published_base(name):
    config = LoraConfig.from_pretrained(FOLDER / "adapters" / name)
    assert config.base_model_name_or_path == MODEL_NAME


@every_adapter
def test_every_tensor_of_the_adapter_finds_its_place(name):
    # The shapes of SmolLM2-135M-Instruct, without its vocabulary.
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    folder = FOLDER / "adapters" / name
    model = PeftModel.from_pretrained(LlamaForCausalLM(config), folder)
    ours = {k.replace(".default", ""): v for k, v in model.state_dict().items() if "lora_" in k}
    stored = load_peft_weights(folder, device="cpu")
    assert ours.keys() == stored.keys()
    assert all((ours[k] == stored[k]).all() for k in stored)
    assert all(v.any() for v in stored.values())


@every_adapter
def test_record_of_the_training_is_kept(name):
    record = json.loads((FOLDER / "adapters" / name / "training.json").read_text())
    assert record["task"] == name
    assert record["accuracy"] > 0.65
    assert record["trained"]["settings"]["task"] == name
