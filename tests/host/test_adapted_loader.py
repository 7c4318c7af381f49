"""The loader that mergekit gets for `base+adapter`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from mergekit.common import ModelReference
from mergekit.io.lazy_tensor_loader import LazyTensorLoader
from safetensors.torch import load, save_file
from support import peft_adapters
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor
from mergekit_spectral.adapters.adapter_files import find_adapter
from mergekit_spectral.adapters.lora import LoraAdapter
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.checkpoints import StoredWeights
from mergekit_spectral.host.lora_inputs import AdaptedLoader

BASE = ModelReference.model_validate("some/base")


class CountingWeights(StoredWeights):
    """Counts how often each weight is read."""

    def __init__(self, folder: Path, lazy_unpickle: bool = True):
        super().__init__(LazyTensorLoader.from_disk(str(folder), lazy_unpickle))
        self.reads: list[str] = []

    def read(self, name: str, device: torch.device) -> Tensor:
        self.reads.append(name)
        return super().read(name, device)


@pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder, state = tmp_path / "base", peft_adapters.toy().half().state_dict()
    folder.mkdir()
    if request.param.endswith(".bin"):
        torch.save(state, folder / request.param)
    else:
        save_file(state, folder / request.param)
    return folder


def loader_for(base: Path, adapter: Path, **ties: tuple[str, ...]) -> AdaptedLoader:
    found = LoraAdapter(find_adapter(str(adapter)))
    return AdaptedLoader(BASE, CountingWeights(base), found, peft_adapters.structure(), ties)


def test_weights_are_read_when_they_are_added_up(base: Path, tmp_path: Path):
    changes = peft_adapters.write(tmp_path / "adapter", ["linear", "tokens", "image"])
    loader = loader_for(base, tmp_path / "adapter")
    state = peft_adapters.toy().half().state_dict()
    for name, weight in state.items():
        tensor = loader.get_tensor(name)
        assert isinstance(tensor, AdaptedTensor)
        assert (tensor.shape, tensor.dtype) == (weight.shape, torch.float16)
        assert tensor.base_id == BASE
        assert name not in loader.weights.reads
        total = weight.double() + changes[name]
        torch.testing.assert_close(tensor.to(torch.float64).to_dense(), total)
        assert loader.weights.reads.count(name) == 1


def test_an_index_that_names_no_file(base: Path):
    loader = LazyTensorLoader.from_disk(str(base))
    loader.index.tensor_paths["linear.weight"] = 3
    with pytest.raises(MergeError, match=r"linear\.weight to 3, which is not a file name"):
        StoredWeights(loader)


def test_a_replaced_weight_is_not_read_from_the_base(base: Path, tmp_path: Path):
    changes = peft_adapters.write(tmp_path / "a", ["linear"], modules_to_save=["square"])
    loader = loader_for(base, tmp_path / "a")
    tensor = loader.get_tensor("square.weight")
    assert isinstance(tensor, AdaptedTensor)
    assert tensor.base_id is None
    assert tensor.dtype == torch.float16
    wanted = peft_adapters.toy().double().state_dict()["square.weight"] + changes["square.weight"]
    torch.testing.assert_close(tensor.base_in(torch.float64), wanted)
    assert not loader.weights.reads


def test_names(base: Path, tmp_path: Path):
    peft_adapters.write(tmp_path / "adapter", ["linear"])
    loader = loader_for(base, tmp_path / "adapter")
    assert loader.index.tensor_paths.keys() == peft_adapters.toy().state_dict().keys()
    by_alias = loader.get_tensor("old.weight", aliases=["older.weight", "linear.weight"])
    assert by_alias is not None
    assert torch.equal(by_alias + 0, loader.get_tensor("linear.weight") + 0)
    assert loader.get_tensor("none.weight", raise_on_missing=False) is None
    with pytest.raises(KeyError, match=r"none\.weight"):
        loader.get_tensor("none.weight")
    loader.flush()
    assert loader.get_tensor("linear.weight") is not None


def test_the_bases_index_is_left_alone(base: Path, tmp_path: Path):
    peft_adapters.write(tmp_path / "adapter", ["linear"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load(path.read_bytes()) | {"base_model.model.score.weight": torch.ones(2, 3)}, path)
    loader = loader_for(base, tmp_path / "adapter")
    assert "score.weight" in loader.index.tensor_paths
    assert "score.weight" not in loader.weights.index.tensor_paths
    score = loader.get_tensor("score.weight")
    assert score is not None
    assert torch.equal(score + 0, torch.ones(2, 3))


def test_what_is_tied_to_a_changed_weight_stays_the_bases(base: Path, tmp_path: Path):
    changes = peft_adapters.write(tmp_path / "adapter", ["tokens"])
    ties = {"head.weight": ("no.weight", "tokens.weight"), "other.weight": ("linear.weight",)}
    loader = loader_for(base, tmp_path / "adapter", **ties)
    assert "head.weight" in loader.index.tensor_paths
    assert "other.weight" not in loader.index.tensor_paths
    head, tokens = loader.get_tensor("head.weight"), loader.get_tensor("tokens.weight")
    assert isinstance(head, AdaptedTensor)
    assert isinstance(tokens, AdaptedTensor)
    assert head.update == ()
    weight = peft_adapters.toy().half().state_dict()["tokens.weight"]
    assert torch.equal(head + 0, weight)
    total = weight.double() + changes["tokens.weight"]
    torch.testing.assert_close(tokens.to(torch.float64) + 0, total)


def test_threads_may_share_it(base: Path, tmp_path: Path):
    """As mergekit's do with --multi-gpu."""
    changes = peft_adapters.write(tmp_path / "adapter", ["linear", "square", "tokens", "image"])
    loader = loader_for(base, tmp_path / "adapter")
    state = peft_adapters.toy().half().state_dict()

    def read(name: str) -> Tensor:
        tensor = loader.get_tensor(name)
        assert tensor is not None
        return tensor.to(torch.float64) + 0

    names = [*state] * 8
    with ThreadPoolExecutor(8) as pool:
        for name, tensor in zip(names, pool.map(read, names), strict=True):
            torch.testing.assert_close(tensor, state[name].double() + changes[name])
