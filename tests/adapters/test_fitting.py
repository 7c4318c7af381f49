"""Match an adapter's updates to the weights in a base's files: names, axes and shapes."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save_file
from support import checkpoints, peft_adapters
from support.by_peft import merged_by_peft
from support.checkpoints import write_adapter
from support.weights import Weights
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mergekit_spectral.adapters.adapter_files import find_adapter
from mergekit_spectral.adapters.fitting import fit_to_base
from mergekit_spectral.adapters.lora import LoraAdapter
from mergekit_spectral.adapters.tensor_names import find_name
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.structure import ModelStructure

PARTS = st.sampled_from(["model", "layers", "0", "1", "mlp", "weight"])
NAMES = st.lists(PARTS, min_size=1, max_size=5).map(".".join)


def toy_weights() -> Weights:
    state = peft_adapters.toy().state_dict()
    return Weights({name: tuple(tensor.shape) for name, tensor in state.items()})


def read(folder: Path) -> LoraAdapter:
    return LoraAdapter(find_adapter(str(folder)))


@given(known=st.sets(NAMES), name=NAMES)
def test_found_name_is_known_or_unchanged(known: set[str], name: str):
    found = find_name(known, name)
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
def test_names_that_differ_in_the_first_part(name: str, known: set[str], found: str):
    assert find_name(known, name) == found


@pytest.mark.parametrize("targets", [["turned", "linear"], ["turned"], ["linear", "square"]])
@pytest.mark.parametrize("setting", [True, False])
def test_updates_are_oriented_like_the_weights(targets: list[str], setting: bool, tmp_path: Path):
    """The fan_in_fan_out of an adapter with layers of both orientations has no effect."""
    changes = peft_adapters.write(tmp_path, targets, fan_in_fan_out=setting)
    adapter = fit_to_base(read(tmp_path), "toy", toy_weights(), peft_adapters.structure())
    for name in adapter.updates:
        B, A = adapter.factors(name)
        torch.testing.assert_close(adapter.updates[name].scale * B @ A, changes[name])


class Square(nn.Module):
    """Square layers of both kinds, and a Conv1D that is not square."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({"c_proj": Conv1D(8, 8), "dense": nn.Linear(8, 8)})
        self.mlp = nn.ModuleDict({"c_proj": Conv1D(10, 8)})
        self.head = nn.Linear(8, 8)


def write_square(folder: Path, targets: str, flag: bool) -> dict[str, Tensor]:
    """Save an adapter on `Square` with `fan_in_fan_out` set to `flag`.

    Returns:
        The updates that peft computes, by weight.
    """
    torch.manual_seed(0)
    base = Square().double()
    settings = peft.LoraConfig(target_modules=targets, init_lora_weights=False)
    peft.get_peft_model(copy.deepcopy(base), settings).save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fan_in_fan_out": flag}))
    merged = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder).merge_and_unload()
    before = base.state_dict()
    return {name: weight - before[name] for name, weight in merged.state_dict().items()}


def square_weights(prefix: str = "") -> Weights:
    shapes = {name: tuple(weight.shape) for name, weight in Square().state_dict().items()}
    return Weights({f"{prefix}{name}": shape for name, shape in shapes.items()})


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize(
    "targets",
    [r"attn\.c_proj", r".*c_proj", r"attn\.dense", r"attn\..*|head", r"head|.*c_proj"],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_class_of_a_square_layer_decides_its_orientation(
    targets: str, flag: bool, prefix: str, tmp_path: Path
):
    changes = write_square(tmp_path, targets, flag)
    weights = square_weights(prefix)
    adapter = fit_to_base(read(tmp_path), "toy", weights, ModelStructure(Square))
    assert adapter.updates
    for name, update in adapter.updates.items():
        B, A = adapter.factors(name)
        torch.testing.assert_close(update.scale * B @ A, changes[name.removeprefix(prefix)])


def structure_that_cannot_be_built() -> ModelStructure:
    return ModelStructure(lambda: nn.Linear("no", "model"))


@pytest.mark.parametrize("flag", [True, False])
def test_square_layer_of_unknown_class_is_oriented_like_layers_of_its_name(
    flag: bool, tmp_path: Path
):
    """In GPT-2, attn.c_proj is square, and mlp.c_proj, which is not, shows its orientation."""
    changes = write_square(tmp_path, r".*c_proj", flag)
    adapter = fit_to_base(read(tmp_path), "toy", square_weights(), structure_that_cannot_be_built())
    for name, update in adapter.updates.items():
        B, A = adapter.factors(name)
        torch.testing.assert_close(update.scale * B @ A, changes[name])


@pytest.mark.parametrize("flag", [True, False])
def test_square_layer_of_unknown_orientation_is_refused(flag: bool, tmp_path: Path):
    write_square(tmp_path, r"attn\.c_proj", flag)
    with pytest.raises(MergeError, match=r"changes attn\.c_proj\.weight, which is square"):
        fit_to_base(read(tmp_path), "toy", square_weights(), structure_that_cannot_be_built())


def test_names_in_the_files_replace_names_of_transformers(tmp_path: Path):
    model = checkpoints.llava()
    model.save_pretrained(tmp_path / "base")
    stored = load_file(tmp_path / "base" / "model.safetensors")
    write_adapter(tmp_path / "adapter", model, 1, r".*vision_tower.*q_proj")
    weights = Weights({name: tuple(tensor.shape) for name, tensor in stored.items()})
    structure = ModelStructure.of(model.config)
    adapter = fit_to_base(read(tmp_path / "adapter"), "llava", weights, structure)
    layers = {f"vision_tower.encoder.layers.{n}.self_attn.q_proj.weight" for n in range(2)}
    assert adapter.updates.keys() == layers
    merged = merged_by_peft(tmp_path / "base", tmp_path / "adapter")
    for name, update in adapter.updates.items():
        B, A = adapter.factors(name)
        total = stored[name].double() + update.scale * B.double() @ A.double()
        torch.testing.assert_close(total, merged[f"model.{name}"])


def test_original_adapter_is_not_changed(tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear", "turned"])
    adapter = read(tmp_path)
    names, sides = set(adapter.updates), adapter.update_shape("turned.weight")
    shapes = {f"model.{name}": shape for name, shape in toy_weights().shapes.items()}
    assert set(fit_to_base(adapter, "toy", Weights(shapes), peft_adapters.structure()).updates) == {
        f"model.{n}" for n in names
    }
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
def test_error_names_the_weight_and_the_shapes(weight: str, shape: tuple[int, ...], tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear", "tokens", "image"])
    weights = toy_weights()
    weights.shapes[weight] = shape
    with pytest.raises(MergeError) as refused:
        fit_to_base(read(tmp_path), "toy", weights, peft_adapters.structure())
    for part in (str(tmp_path), "toy", weight, str(list(shape))):
        assert part in str(refused.value)


def test_error_has_the_numbers_of_matching_and_missing_weights(tmp_path: Path):
    peft_adapters.write(tmp_path, ["linear", "square", "tokens"])
    weights = toy_weights()
    for name in ("square.weight", "tokens.weight"):
        del weights.index.tensor_paths[name]
    with pytest.raises(MergeError, match="changes 4 weights, of which the base has 2 and lacks 2"):
        fit_to_base(read(tmp_path), "toy", weights, peft_adapters.structure())


def test_base_may_lack_a_head_that_the_adapter_contains(tmp_path: Path):
    """peft saves the weight of an adapted head that is tied to the embeddings."""
    peft_adapters.write(tmp_path, ["linear", "square"])
    path = tmp_path / "adapter_model.safetensors"
    whole = {"base_model.model.square.base_layer.weight": torch.ones(8, 8)}
    save_file(load(path.read_bytes()) | whole, path)
    weights = toy_weights()
    del weights.index.tensor_paths["square.weight"]
    adapter = fit_to_base(read(tmp_path), "toy", weights, peft_adapters.structure())
    assert "square.weight" in adapter.updates
    assert "square.weight" in adapter.replacements
    whole = {"base_model.model.square.base_layer.weight": torch.ones(8, 9)}
    save_file(load(path.read_bytes()) | whole, path)
    expected = r"update of square\.weight has shape \[8, 8\], but the weight has shape \[8, 9\]"
    with pytest.raises(MergeError, match=expected):
        fit_to_base(read(tmp_path), "toy", weights, peft_adapters.structure())
