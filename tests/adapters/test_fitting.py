"""Names, orientation and shapes: an adapter on the weights that a base's files have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from adapters import peft_adapters
from hypothesis import given
from hypothesis import strategies as st
from mergekit.io.lazy_tensor_loader import ShardedTensorIndex
from safetensors.torch import load_file, save_file
from torch import Tensor

from mergekit_spectral.adapters import LoraAdapter, find_adapter
from mergekit_spectral.adapters.base_weights import Header
from mergekit_spectral.adapters.fitting import fitted, name_in
from mergekit_spectral.errors import MergeError

PARTS = st.sampled_from(["model", "layers", "0", "1", "mlp", "weight"])
NAMES = st.lists(PARTS, min_size=1, max_size=5).map(".".join)


class Weights:
    """Weights of which only the shapes are known."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.shapes = shapes
        self.index = ShardedTensorIndex("", True, dict.fromkeys(shapes, ""), [])

    def header(self, name: str) -> Header:
        return self.shapes[name], torch.float32

    def read(self, name: str, device: torch.device) -> Tensor:
        raise AssertionError(f"{name} was read")


def toy_weights() -> Weights:
    state = peft_adapters.toy().state_dict()
    return Weights({name: tuple(tensor.shape) for name, tensor in state.items()})


def read(folder: Path) -> LoraAdapter:
    return LoraAdapter(find_adapter(str(folder)))


@given(known=st.sets(NAMES), name=NAMES)
def test_a_name_is_one_of_the_files_or_stays(known: set[str], name: str):
    found = name_in(known, name)
    assert found in known or found == name
    assert found == name or found.endswith(f".{name}") or name.endswith(f".{found}")
    if name in known:
        assert found == name


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("transformer.h.0.c.weight", {"h.0.c.weight"}, "h.0.c.weight"),
        ("h.0.c.weight", {"transformer.h.0.c.weight"}, "transformer.h.0.c.weight"),
        ("_orig_mod.model.q.weight", {"model.q.weight"}, "model.q.weight"),
        ("h.0.c.weight", {"text.h.0.c.weight", "vision.h.0.c.weight"}, "h.0.c.weight"),
        ("a.b.h.weight", {"h.weight"}, "a.b.h.weight"),
        ("h.weight", {"a.b.h.weight"}, "h.weight"),
        ("weight", {"a.weight"}, "a.weight"),
    ],
)
def test_one_name_more_or_less(name: str, known: set[str], found: str):
    assert name_in(known, name) == found


@pytest.mark.parametrize("targets", [["turned", "linear"], ["turned"], ["linear", "square"]])
@pytest.mark.parametrize("setting", [True, False])
def test_layers_go_the_way_of_their_weights(targets: list[str], setting: bool, tmp_path: Path):
    """Whatever fan_in_fan_out a mixed adapter was saved with."""
    changes = peft_adapters.write(tmp_path, targets, fan_in_fan_out=setting)
    adapter = fitted(read(tmp_path), "toy", toy_weights())
    for name in adapter.updates:
        B, A = adapter.factors(name)
        torch.testing.assert_close(adapter.updates[name].scale * B @ A, changes[name])


def test_a_square_layer_goes_with_others_of_its_name(tmp_path: Path):
    """As GPT-2's attn.c_proj, which is square, with mlp.c_proj, which is not."""
    peft_adapters.write(tmp_path, ["linear", "square"])
    path = tmp_path / "adapter_model.safetensors"
    factors = load_file(path)
    renamed = {
        k.replace("square", "attn.c_proj").replace(".linear", ".mlp.c_proj"): v
        for k, v in factors.items()
    }
    save_file(renamed, path)
    shapes = {
        "attn.c_proj.weight": (8, 8),
        "mlp.c_proj.weight": (6, 10),
        "block.mlp.c_proj.weight": (6, 4),
    }
    adapter = fitted(read(tmp_path), "toy", Weights(shapes))
    key = "base_model.model.attn.c_proj.lora_{}.weight"
    B, A = adapter.factors("attn.c_proj.weight")
    torch.testing.assert_close(B @ A, (renamed[key.format("B")] @ renamed[key.format("A")]).T)


def test_the_adapter_itself_is_left_alone(tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear", "turned"])
    adapter = read(tmp_path)
    names, sides = set(adapter.updates), adapter.update_shape("turned.weight")
    shapes = {f"model.{name}": shape for name, shape in toy_weights().shapes.items()}
    assert set(fitted(adapter, "toy", Weights(shapes)).updates) == {f"model.{n}" for n in names}
    assert (set(adapter.updates), adapter.update_shape("turned.weight")) == (names, sides)


@pytest.mark.parametrize(
    ("weight", "shape"),
    [
        ("linear.weight", (10, 7)),
        ("linear.weight", (11, 6)),
        ("tokens.weight", (13, 5)),
        ("image.weight", (7, 3, 2, 2)),
    ],
)
def test_shapes_that_differ_are_named(weight: str, shape: tuple[int, ...], tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear", "tokens", "image"])
    weights = toy_weights()
    weights.shapes[weight] = shape
    with pytest.raises(MergeError) as refused:
        fitted(read(tmp_path), "toy", weights)
    for part in (str(tmp_path), "toy", weight, str(list(shape))):
        assert part in str(refused.value)


def test_how_many_fit_is_told(tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear", "square", "tokens"])
    weights = toy_weights()
    for name in ("square.weight", "tokens.weight"):
        del weights.index.tensor_paths[name]
    with pytest.raises(
        MergeError, match="of the 4 weights that it changes 2 are there and 2 are not"
    ):
        fitted(read(tmp_path), "toy", weights)


def test_a_head_that_comes_with_its_weight_need_not_be_there(tmp_path: Path):
    """peft saves the weight of an adapted head that is tied to the embeddings."""
    peft_adapters.write(tmp_path, ["linear", "square"])
    path = tmp_path / "adapter_model.safetensors"
    whole = {"base_model.model.square.base_layer.weight": torch.ones(8, 8)}
    save_file(load_file(path) | whole, path)
    weights = toy_weights()
    del weights.index.tensor_paths["square.weight"]
    adapter = fitted(read(tmp_path), "toy", weights)
    assert "square.weight" in adapter.updates
    assert "square.weight" in adapter.replacements
    whole = {"base_model.model.square.base_layer.weight": torch.ones(8, 9)}
    save_file(load_file(path) | whole, path)
    with pytest.raises(MergeError, match=r"square\.weight as \[8, 8\], but there it is \[8, 9\]"):
        fitted(read(tmp_path), "toy", weights)
