"""`merge_adapters`: the same adapter as the command writes, on a model that is loaded with peft."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml
from click.testing import CliRunner
from peft import LoraConfig, PeftModel
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file
from support import checkpoints, peft_adapters
from support.one_thread import one_thread as one_thread
from support.recipe_builders import METHODS
from torch import Tensor, nn
from transformers import PreTrainedModel

from mergekit_spectral import MergeError, merge_adapters
from mergekit_spectral.command_line.main import main

transformers.utils.logging.disable_progress_bar()
pytestmark = pytest.mark.usefixtures("one_thread")

LLAMA: dict[str, dict[str, Any]] = {
    "math": {"targets": ["q_proj", "v_proj"], "rank": 4, "lora_alpha": 3},
    "code": {"targets": ["q_proj", "up_proj"], "rank": 2, "use_rslora": True},
    "chat": {
        "targets": ["v_proj", "down_proj", "embed_tokens", "lm_head"],
        "rank": 3,
        "rank_pattern": {"layers.1.self_attn.v_proj": 5, "embed_tokens": 2},
        "alpha_pattern": {"v_proj": 2.0},
    },
}
GPT2: dict[str, dict[str, Any]] = {
    "math": {"targets": ["c_attn", "lm_head"], "rank": 3, "fan_in_fan_out": True},
    "code": {"targets": ["c_attn", "mlp.c_proj", "wpe"], "rank": 2, "fan_in_fan_out": True},
}


class Loaded:
    """A base, adapters on it in folders, and models with all of them loaded."""

    def __init__(self, folder: Path, base: PreTrainedModel, adapters: dict[str, dict[str, Any]]):
        self.folder, self.base, self.names = folder, base, list(adapters)
        base.save_pretrained(folder / "base")
        for seed, (name, settings) in enumerate(adapters.items(), start=1):
            checkpoints.write_adapter(folder / name, base, seed, **settings)

    def load(self, **options: Any) -> PeftModel:
        first, *others = self.names
        model = copy.deepcopy(self.base)
        loaded = PeftModel.from_pretrained(model, self.folder / first, first, **options)
        for name in others:
            loaded.load_adapter(self.folder / name, name, **options)
        return loaded

    def merge_by_command(
        self, out: Path, method: str, weights: Sequence[float], *options: str, **parameters: Any
    ) -> dict[str, Tensor]:
        base = self.folder / "base"
        models = [
            {"model": f"{base}+{self.folder / name}", "parameters": {"weight": weight}}
            for name, weight in zip(self.names, weights, strict=True)
        ]
        recipe = {
            "merge_method": method,
            "base_model": str(base),
            "models": models,
            "parameters": parameters,
        }
        out.mkdir(exist_ok=True)
        (out / "recipe.yml").write_text(yaml.safe_dump(recipe))
        arguments = ["adapter", str(out / "recipe.yml"), str(out / "adapter"), *options]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        return load_file(out / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded(tmp_path_factory.mktemp("llama"), checkpoints.llama(), LLAMA)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    base = checkpoints.gpt2(tie_word_embeddings=False)
    return Loaded(tmp_path_factory.mktemp("gpt2"), base, GPT2)


def saved(model: PeftModel, folder: Path, name: str = "merged") -> dict[str, Tensor]:
    model.save_pretrained(folder, selected_adapters=[name], save_embedding_layers=False)
    return load_file(folder / name / "adapter_model.safetensors")


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert torch.equal(ours[key], tensor), key


def layers(model: PeftModel) -> Iterator[LoraLayer]:
    return (module for module in model.modules() if isinstance(module, LoraLayer))


@pytest.mark.parametrize("method", METHODS)
def test_is_what_the_command_writes(method: str, llama: Loaded, tmp_path: Path):
    model, weights = llama.load(), [1.0, 0.5, 2.0]
    found = merge_adapters(model, llama.names, weights, method=method, lambda_=0.7)
    theirs = llama.merge_by_command(tmp_path, method, weights, **{"lambda": 0.7})
    ours = saved(model, tmp_path)
    assert_equal(ours, theirs)
    keys = {name: f"base_model.model.{name}.lora_A.weight" for name in found.ranks}
    # All are filled up to one rank.
    ranks = {name: int(ours[key].any(1).sum()) for name, key in keys.items() if key in ours}
    assert found.ranks == {**ranks, "model.embed_tokens": found.ranks["model.embed_tokens"]}


@pytest.mark.parametrize("method", ["drm", "tsvm"])
def test_layers_with_weights_in_out(method: str, gpt2: Loaded, tmp_path: Path):
    """In GPT-2, some layers store [in, out], and the embedding of positions is no vocabulary."""
    model = gpt2.load()
    merge_adapters(model, gpt2.names, method=method)
    assert_equal(saved(model, tmp_path), gpt2.merge_by_command(tmp_path, method, [1, 1]))


@pytest.mark.parametrize(("method", "parameters"), [("drm", {"density": 0.5}), ("iso", {})])
def test_rank_and_energy(method: str, parameters: dict[str, Any], llama: Loaded, tmp_path: Path):
    model = llama.load()
    found = merge_adapters(model, llama.names, method=method, rank=3, energy=0.9, **parameters)
    options = ("--rank", "3", "--energy", "0.9")
    theirs = llama.merge_by_command(tmp_path, method, [1, 1, 1], *options, **parameters)
    assert_equal(saved(model, tmp_path), theirs)
    assert max(found.ranks.values()) == 3
    assert 0 < min(found.kept.values()) < 1
    assert f"of rank {min(found.ranks.values())} to 3, which keep at least" in repr(found)
    assert (min(found.inputs_kept.values()) < 1) == (method == "iso")
    assert ("% of the inputs'." in repr(found)) == (method == "iso")


def test_is_added_beside_the_others_and_can_be_loaded_again(llama: Loaded, tmp_path: Path):
    model = llama.load()
    before = logits(model)
    merge_adapters(model, llama.names, adapter_name="all three")
    assert model.active_adapters == ["math"]
    assert torch.equal(logits(model), before)
    model.set_adapter("all three")
    after = logits(model)
    assert not torch.equal(after, before)
    model.save_pretrained(tmp_path, selected_adapters=["all three"])
    again = PeftModel.from_pretrained(copy.deepcopy(llama.base), tmp_path / "all three")
    assert torch.equal(logits(again), after)
    model.delete_adapter("all three")
    merge_adapters(model, ["code", "math"], {"math": 1.0, "code": 2.0}, "all three")


@pytest.mark.parametrize("weights", [2.0, [2.0, 2.0], {"code": 2.0, "math": 2.0}])
def test_weights_are_a_number_a_list_or_by_name(weights: Any, llama: Loaded, tmp_path: Path):
    model = llama.load()
    settings = {"method": "tsvm", "normalize": False}
    merge_adapters(model, ["math", "code"], weights, "one", **settings)
    merge_adapters(model, ["math", "code"], [2, 2], "two", **settings)
    one, two = saved(model, tmp_path, "one"), saved(model, tmp_path, "two")
    assert_equal(one, two)


def test_factors_keep_dtypes(llama: Loaded):
    base = copy.deepcopy(llama.base).bfloat16()
    first, *others = llama.names
    for autocast, dtype in ((True, torch.float32), (False, torch.bfloat16)):
        path = llama.folder / first
        model = PeftModel.from_pretrained(
            copy.deepcopy(base), path, first, autocast_adapter_dtype=autocast
        )
        for name in others:
            path = llama.folder / name
            model.load_adapter(path, name, autocast_adapter_dtype=autocast)
        merge_adapters(model, llama.names)
        factors = [p for name, p in model.named_parameters() if "merged" in name]
        assert {factor.dtype for factor in factors} == {dtype}
        assert not any(factor.requires_grad for factor in factors)
        model.set_adapter("merged")
        assert logits(model).isfinite().all()


class Quantized(nn.Module):
    """A layer without a weight in floating point."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        codes = torch.zeros(layer.weight.numel() // 2, dtype=torch.uint8)
        self.weight = nn.Parameter(codes, requires_grad=False)


@pytest.mark.parametrize("place", ["meta", "quantized"])
def test_needs_no_weights_of_the_base(place: str, llama: Loaded, tmp_path: Path):
    model, whole = llama.load(), llama.load()
    for layer in layers(model):
        base = layer.get_base_layer()
        if place == "meta":
            base.to("meta")
        elif isinstance(base, nn.Linear):
            layer.base_layer = Quantized(base)
    merge_adapters(model, llama.names)
    merge_adapters(whole, llama.names)
    assert_equal(saved(model, tmp_path / "1"), saved(whole, tmp_path / "2"))


def test_every_kind_of_layer():
    """Merged with nothing else, an adapter stays as it is."""
    targets = ["linear", "square", "turned", "tokens", "image"]
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    model = peft.get_peft_model(peft_adapters.toy(), config)
    merge_adapters(model, ["default"], method="knots_task_arithmetic")
    for layer in layers(model):
        before, after = layer.get_delta_weight("default"), layer.get_delta_weight("merged")
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-7)
    assert len(list(layers(model))) == 6


def test_scales_that_were_set_on_the_model_count(llama: Loaded):
    model = llama.load()
    for layer in layers(model):
        if "math" in layer.scaling:
            layer.set_scale("math", 2.0)
    merge_adapters(model, ["math"], method="knots_task_arithmetic")
    for layer in layers(model):
        if "math" in layer.scaling:
            before, after = layer.get_delta_weight("math"), layer.get_delta_weight("merged")
            torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-7)


def test_names_what_is_left_out(tmp_path: Path):
    base = checkpoints.llama_classifier()
    settings: dict[str, Any] = {"targets": ["q_proj"], "task_type": "SEQ_CLS"}
    adapters = {"one": settings, "two": {**settings, "lora_bias": True}}
    model = Loaded(tmp_path, base, adapters).load()
    with pytest.warns(UserWarning, match="Left out: score of one, ") as warned:
        found = merge_adapters(model, ["one", "two"])
    assert "model.layers.2.self_attn.q_proj.bias of two" in str(warned[0].message)
    assert found.left_out[:2] == ("score of one", "score of two")
    model.set_adapter("merged")
    after = logits(model)
    model.save_pretrained(tmp_path / "out", selected_adapters=["merged"])
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "out" / "merged")
    assert torch.equal(logits(again), after)


def test_experts_are_left_out(tmp_path: Path):
    config = {"target_parameters": ["mlp.experts.down_proj"], "lora_dropout": 0.0}
    base = checkpoints.qwen3_moe()
    settings: dict[str, Any] = {"targets": ["q_proj"], **config}
    model = Loaded(tmp_path, base, {"one": settings}).load()
    with pytest.warns(UserWarning, match="Left out: model.layers.0.mlp.experts of one"):
        found = merge_adapters(model, ["one"])
    assert {name.rsplit(".", 1)[1] for name in found.ranks} == {"q_proj"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapters": ["math", "cod"]}, "no adapter cod; did you mean code?"),
        ({"adapters": ["math", "math"]}, "must be a list of different names"),
        ({"adapters": "math"}, "must be a list of different names, got 'math'"),
        ({"adapters": []}, "must be a list of different names"),
        ({"adapter_name": "code"}, "has an adapter code already"),
        ({"method": "ties"}, "The merge method ties cannot merge into an adapter; use one of drm"),
        ({"method": "drm", "densty": 0.5}, "drm has no parameter densty; did you mean density?"),
        ({"weight": [1, 1]}, "knots_ties has no parameter weight; did you mean weights?"),
        ({"method": "drm", "density": 2}, "`density` must be above 0 and at most 1, got 2"),
        ({"weights": [1.0]}, "`weights` must have 2 values, one for each adapter, got 1"),
        ({"weights": {"math": 1.0}}, "`weights` must have a value for each of math, code"),
        ({"rank": 0}, "`rank` must be at least 1, got 0"),
        ({"energy": float("nan")}, "`energy` must be above 0 and at most 1, got nan"),
        ({"lambda_": 0.0}, "The merged update of every weight is zero"),
        ({"lambda_": "much"}, "`lambda` must be"),
    ],
)
def test_errors_are_sentences(changes: dict[str, Any], message: str, llama: Loaded):
    model = llama.load()
    with pytest.raises(MergeError) as refusal:
        merge_adapters(model, **{"adapters": ["math", "code"], **changes})
    assert message in refusal.value.message
    assert list(model.peft_config) == llama.names


def test_what_is_no_product_is_refused(tmp_path: Path):
    settings: dict[str, Any] = {"targets": ["q_proj"]}
    adapters = {"plain": settings, "dora": {**settings, "use_dora": True}}
    model = Loaded(tmp_path, checkpoints.llama(), adapters).load()
    with pytest.raises(MergeError, match="Adapter dora uses DoRA, which is not an added product"):
        merge_adapters(model, ["plain", "dora"])
    assert merge_adapters(model, ["plain"]).ranks


def test_a_model_without_adapters_is_refused(llama: Loaded):
    with pytest.raises(MergeError, match=r"takes a peft.PeftModel .*, got a LlamaForCausalLM"):
        merge_adapters(llama.base, ["math"])  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_factors_without_finite_values_are_refused(value: float, llama: Loaded):
    model = llama.load()
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_A.code" in name)[0, 0] = value
    with pytest.raises(MergeError, match=r"q_proj.weight of code holds a NaN or an infinity"):
        merge_adapters(model, ["math", "code"])
    assert list(model.peft_config) == llama.names


def test_factors_on_the_meta_device_are_refused(llama: Loaded):
    model = llama.load().to("meta")
    with pytest.raises(MergeError, match="are on the meta device, without values"):
        merge_adapters(model, ["math", "code"])
