"""Loaders of tensors, and how they are lent to mergekit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from mergekit.common import ModelReference
from mergekit.io.lazy_tensor_loader import LazyTensorLoader, ShardedTensorIndex
from mergekit.io.tasks import LoaderCache, LoadTensor
from mergekit.options import MergeOptions
from safetensors.torch import save_file

from mergekit_spectral.host.dense_inputs import HostLoader, WeightLoader
from mergekit_spectral.host.loaders import HeaderLoader, Loader, lend_loaders

MODEL, OTHER = map(ModelReference.model_validate, ("some/model", "another/model"))


@pytest.fixture
def stored(tmp_path: Path) -> LazyTensorLoader:
    save_file({"weight": torch.arange(6.0).view(2, 3)}, tmp_path / "model.safetensors")
    return LazyTensorLoader.from_disk(str(tmp_path))


def headers(name: str = "weight") -> HeaderLoader:
    index = ShardedTensorIndex("", True, {name: ""}, [])
    return HeaderLoader(index, {name: ((2, 3), torch.float16)})


@pytest.mark.parametrize("kind", ["mergekit's", "weights", "main memory", "headers"])
def test_all_kinds_find_tensors_as_mergekits_do(kind: str, stored: LazyTensorLoader):
    loaders: dict[str, Loader] = {
        "mergekit's": stored,
        "weights": WeightLoader(MODEL, stored, False, {}),
        "main memory": HostLoader(stored),
        "headers": headers(),
    }
    loader = loaders[kind]
    found = loader.get_tensor("weight", device="cpu")
    assert found is not None
    assert found.shape == (2, 3)
    by_alias = loader.get_tensor("old", aliases=["older", "weight"])
    assert by_alias is not None
    assert by_alias.shape == (2, 3)
    assert loader.get_tensor("old", raise_on_missing=False) is None
    with pytest.raises(KeyError, match="old"):
        loader.get_tensor("old")
    loader.flush()
    assert loader.get_tensor("weight") is not None


def test_headers_have_no_entries():
    loader = headers()
    tensor = loader.get_tensor("weight")
    assert tensor is not None
    assert (tensor.device.type, tensor.dtype) == ("meta", torch.float16)
    assert loader.read_names == {"weight"}


def test_loaders_are_lent_for_the_length_of_a_context():
    with lend_loaders(MergeOptions(), {MODEL: headers(), OTHER: headers("bias")}) as table:
        assert table.open(MODEL) is LoaderCache().get(MODEL)
        read = LoadTensor(model=OTHER, tensor="bias").execute()
        assert read is not None
        assert read.shape == (2, 3)
    assert not {MODEL, OTHER} & LoaderCache.loaders.keys()


def test_loaders_that_were_there_before_are_again():
    before, lent, later = headers(), headers(), headers()
    with lend_loaders(MergeOptions(), {MODEL: before}):
        with suppress(RuntimeError), lend_loaders(MergeOptions(), {MODEL: lent}) as table:
            assert LoaderCache().get(MODEL) is lent
            table.put({OTHER: later})
            raise RuntimeError("a merge fails")
        assert LoaderCache().get(MODEL) is before
        assert OTHER not in LoaderCache.loaders


def test_the_cache_is_set_up_with_the_options():
    with lend_loaders(MergeOptions(lora_merge_cache="copies", trust_remote_code=True)):
        cache = LoaderCache()
        assert (cache.lora_cache_dir, cache.trust_remote_code) == ("copies", True)
    LoaderCache().setup(MergeOptions())
