"""Read an adapter's updates of weights, and compare them with those that peft computes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save_file
from support import peft_adapters
from torch import Tensor

from mergekit_spectral.adapters.adapter_files import find_adapter
from mergekit_spectral.adapters.lora import Addition, LoraAdapter, NotAProductError, Product
from mergekit_spectral.errors import MergeError

LAYERS = ["linear", "square", "turned", "tokens", "image"]


def read(folder: Path) -> LoraAdapter:
    return LoraAdapter(find_adapter(str(folder)))


def update_of(adapter: LoraAdapter, weight: str) -> Tensor:
    update = adapter.updates[weight]
    if isinstance(update, Addition):
        return update.scale * adapter.vector(weight)
    B, A = adapter.factors(weight)
    return update.scale * B @ A


def assert_updates_equal(adapter: LoraAdapter, changes: dict[str, Tensor]) -> None:
    """Check that every update equals peft's change, and that peft changed no other weight."""
    for name, change in changes.items():
        if name in adapter.updates:
            torch.testing.assert_close(update_of(adapter, name).view(change.shape), change)
            shape = change.flatten(1).shape if change.ndim > 1 else change.shape
            assert adapter.update_shape(name) == shape
        else:
            assert not change.any()


@given(
    layers=st.lists(st.sampled_from(LAYERS), min_size=1, unique=True),
    rank=st.integers(1, 5),
    alpha=st.integers(1, 40),
    rslora=st.booleans(),
    ranks=st.dictionaries(
        st.sampled_from(["^linear", "block.linear", "square"]), st.integers(1, 5)
    ),
    alphas=st.dictionaries(st.sampled_from(["linear", r"^linear", "turned"]), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_updates_are_what_peft_adds(
    layers: list[str],
    rank: int,
    alpha: int,
    rslora: bool,
    ranks: dict[str, int],
    alphas: dict[str, int],
    seed: int,
):
    with tempfile.TemporaryDirectory() as folder:
        changes = peft_adapters.write(
            Path(folder),
            layers,
            seed,
            r=rank,
            lora_alpha=alpha,
            use_rslora=rslora,
            rank_pattern=ranks,
            alpha_pattern=alphas,
            # One setting for all layers of a file: only true where all of them are Conv1D.
            fan_in_fan_out=layers == ["turned"],
        )
        adapter = read(Path(folder))
        if "turned" in layers and len(layers) > 1:
            # Its orientation is only known with the base; test_fitting checks it.
            changes.pop("turned.weight")
            if adapter.config.fan_in_fan_out:
                changes = {k: v for k, v in changes.items() if k.startswith("tokens")}
        assert_updates_equal(adapter, changes)


def test_lora_bias_adds_to_biases(tmp_path: Path):
    options = {"lora_bias": True, "lora_alpha": 3, "use_rslora": True, "r": 4}
    changes = peft_adapters.write(tmp_path, ["linear"], **options)
    adapter = read(tmp_path)
    assert isinstance(adapter.updates["linear.bias"], Addition)
    assert_updates_equal(adapter, changes)


def test_whole_tensors_are_replacements(tmp_path: Path):
    options = {"bias": "all", "modules_to_save": ["square"]}
    changes = peft_adapters.write(tmp_path, ["linear"], **options)
    base, adapter = peft_adapters.toy().state_dict(), read(tmp_path)
    biases = {name for name in base if name.endswith("bias")}
    assert adapter.replacements.keys() == {"square.weight"} | biases
    for name in adapter.replacements:
        assert adapter.replacement_shape(name) == base[name].shape
        wanted = base[name].double() + changes[name]
        torch.testing.assert_close(adapter.replacement(name), wanted)


def test_values_are_read_on_demand(tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear", "square"])
    path = tmp_path / "adapter_model.safetensors"
    adapter = read(tmp_path)
    weights = load(path.read_bytes())
    save_file({key: torch.zeros_like(tensor) for key, tensor in weights.items()}, path)
    assert not any(part.any() for part in adapter.factors("linear.weight"))


NOT_PRODUCTS: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "QALoRA": {"use_qalora": True},
    "layer replication": {"layer_replication": [[0, 2], [1, 3]]},
    "trainable tokens": {"trainable_token_indices": [1, 2]},
    "activated LoRA": {"alora_invocation_tokens": [3]},
    "a base changed by its initialization, pissa": {"init_lora_weights": "pissa"},
    "a base changed by its initialization, pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "a base changed by its initialization, olora": {"init_lora_weights": "olora"},
    "a base changed by its initialization, loftq": {
        "init_lora_weights": "loftq",
        "loftq_config": {"loftq_bits": 4},
    },
    "a base changed by its initialization, corda": {"init_lora_weights": "corda"},
}


@pytest.mark.parametrize("what", NOT_PRODUCTS)
def test_error_names_the_unsupported_feature(what: str, tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear"])
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | NOT_PRODUCTS[what]))
    with pytest.raises(NotAProductError) as refused:
        read(tmp_path)
    assert refused.value.what == what
    assert str(refused.value).startswith(f"Adapter {tmp_path} uses {what}, which is not")


@pytest.mark.parametrize("start", ["true", "false", '"gaussian"', '"orthogonal"', '"eva"'])
def test_initializations_that_do_not_change_the_base(start: str, tmp_path: Path):
    changes = peft_adapters.write(tmp_path, ["linear"])
    path = tmp_path / "adapter_config.json"
    path.write_text(
        path.read_text().replace('"init_lora_weights": false', f'"init_lora_weights": {start}')
    )
    assert_updates_equal(read(tmp_path), changes)


IN_TRAINING_ONLY: dict[str, dict[str, Any]] = {"EVA": {"init_lora_weights": "eva"}}
if hasattr(peft, "VeloraConfig"):  # the oldest supported peft has neither MiCA nor VeLoRA
    IN_TRAINING_ONLY["MiCA"] = {"init_lora_weights": "mica", "r": 4}
    IN_TRAINING_ONLY["VeLoRA"] = {"velora_config": peft.VeloraConfig(num_groups=2)}


@pytest.mark.parametrize("kind", IN_TRAINING_ONLY)
def test_kinds_that_differ_only_in_training(kind: str, tmp_path: Path):
    config = IN_TRAINING_ONLY[kind]
    changes = peft_adapters.write(tmp_path, ["linear", "square"], dtype=torch.float32, **config)
    adapter = read(tmp_path)
    assert adapter.updates.keys() == {"linear.weight", "block.linear.weight", "square.weight"}
    for name, update in adapter.updates.items():
        assert isinstance(update, Product)
        torch.testing.assert_close(update_of(adapter, name), changes[name])


def test_unknown_lora_tensor_is_not_ignored(tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear"])
    path = tmp_path / "adapter_model.safetensors"
    key = "base_model.model.linear.lora_magnitude_vector"
    save_file(load(path.read_bytes()) | {key: torch.ones(10)}, path)
    with pytest.raises(NotAProductError, match=key):
        read(tmp_path)


@pytest.mark.parametrize(("embedding", "layer"), [(False, "linear"), (True, "tokens")])
@pytest.mark.parametrize("half", ["A", "B"])
def test_missing_factor(half: str, embedding: bool, layer: str, tmp_path: Path):
    peft_adapters.write(tmp_path, [layer])
    path = tmp_path / "adapter_model.safetensors"
    factors = load(path.read_bytes())
    del factors[
        f"base_model.model.{layer}.lora_" + (f"embedding_{half}" if embedding else f"{half}.weight")
    ]
    save_file(factors, path)
    with pytest.raises(MergeError, match=f"only one factor of {layer}: lora_{half} is missing"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("A", "B"), [((3, 6), (10, 4)), ((4, 6), (10,)), ((4,), (10, 4)), ((), (10, 4)), ((4, 6), ())]
)
def test_factors_that_do_not_fit_each_other(A: tuple[int, ...], B: tuple[int, ...], tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear"])
    shapes = {"lora_A": A, "lora_B": B}
    factors = {f"base_model.model.linear.{k}.weight": torch.ones(s) for k, s in shapes.items()}
    save_file(factors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(MergeError, match=r"factors of linear do not fit each other") as refused:
        read(tmp_path)
    assert str(list(A)) in str(refused.value)
    assert str(list(B)) in str(refused.value)


@pytest.mark.parametrize(
    "config",
    [peft.PromptTuningConfig(num_virtual_tokens=2), peft.PrefixTuningConfig(num_virtual_tokens=2)],
    ids=lambda config: config.peft_type.value,
)
def test_prompt_learning_is_refused(config: peft.PeftConfig, tmp_path: Path):
    config.save_pretrained(tmp_path)
    save_file({"prompt_embeddings": torch.ones(2, 4)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(MergeError, match=f"type {config.peft_type.value}") as refused:
        read(tmp_path)
    assert not isinstance(refused.value, NotAProductError)
