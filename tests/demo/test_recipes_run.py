"""The recipes as they are, on a small base and small adapters under the same names."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from peft import LoraConfig, get_peft_model
from support.checkpoints import VOCABULARY, write_tokenizer
from support.demo_recipes import run_recipes_in_forks
from transformers import LlamaConfig, LlamaForCausalLM

from mergekit_spectral.demo.base_model import MODEL_NAME
from mergekit_spectral.demo.recipes import ADAPTERS, METHODS, recipe_folder, tune_recipe
from mergekit_spectral.demo.run import TUNED


@pytest.fixture(scope="module")
def work_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder / MODEL_NAME)
    write_tokenizer(folder / MODEL_NAME)
    for name in ADAPTERS:
        base = LlamaForCausalLM.from_pretrained(folder / MODEL_NAME, dtype=torch.float32)
        lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(base, lora).save_pretrained(folder / "adapters" / name)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_recipe_merges(method: str, work_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(work_folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = yaml.safe_load((recipe_folder() / f"{method}.yml").read_text())
    options = MergeOptions(lora_merge_cache="copies", quiet=True, write_model_card=False)
    out = work_folder / "merged" / method
    run_merge(MergeConfiguration.model_validate(recipe), str(out), options)

    base = LlamaForCausalLM.from_pretrained(MODEL_NAME, dtype="auto").state_dict()
    merged = LlamaForCausalLM.from_pretrained(out, dtype="auto").state_dict()
    assert all(tensor.dtype == torch.bfloat16 for tensor in merged.values())
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {name for name in base if name.endswith("_proj.weight")}


def test_tuning_reads_the_examples_and_merges(work_folder: Path, monkeypatch: pytest.MonkeyPatch):
    run_recipes_in_forks(monkeypatch)
    out, merged = work_folder / "tuned", work_folder / "merged" / "tuned"
    tune_recipe(recipe_folder() / f"{TUNED}.yml", ("iso",), out, merged, work_folder)
    found = json.loads((out / "report.json").read_text())
    assert found["sets"] == list(ADAPTERS)
    assert found["examples"] == [[20, 20]] * len(ADAPTERS)
    methods = {one["name"].split()[0] for one in found["searched"]}
    assert methods == {TUNED, "iso"}
    assert found["chosen"] in {one["name"] for one in found["results"]}
    LlamaForCausalLM.from_pretrained(merged)
