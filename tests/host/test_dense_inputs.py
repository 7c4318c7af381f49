"""Dense inputs of a merge on a GPU: what mergekit's loaders give within the context."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache, LoadTensor
from mergekit.options import MergeOptions
from safetensors.torch import save_file
from support import peft_adapters

from mergekit_spectral.adapters.adapted import AdaptedTensor
from mergekit_spectral.adapters.deferred import HostTensor
from mergekit_spectral.host.run_merge import lend_merge_loaders


@pytest.fixture
def model(tmp_path: Path) -> ModelReference:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({"weight": torch.arange(6.0).view(2, 3)}, tmp_path / "model.safetensors")
    return ModelReference.model_validate(str(tmp_path))


@pytest.fixture
def config(model: ModelReference) -> MergeConfiguration:
    return MergeConfiguration.model_validate(
        {"merge_method": "drm", "base_model": str(model), "models": [{"model": str(model)}]}
    )


def test_on_a_gpu_they_stay_in_main_memory(model: ModelReference, config: MergeConfiguration):
    task = LoadTensor(model=model, tensor="weight", dtype="bfloat16", device="meta")
    with lend_merge_loaders(config, MergeOptions(cuda=True)):
        tensor = task.execute()
        assert type(tensor) is HostTensor
        assert (tensor.device.type, tensor.dtype) == ("meta", torch.bfloat16)
        assert torch.equal(tensor.stored, torch.arange(6.0).view(2, 3).bfloat16())
        assert LoadTensor(model=model, tensor="other", optional=True).execute() is None
        assert LoaderCache().get(model).get_tensor("other", raise_on_missing=False) is None
        with pytest.raises(KeyError):
            LoaderCache().get(model).get_tensor("other")
        LoaderCache().flush_all()
        assert task.execute() is not None
    assert model not in LoaderCache().loaders


def test_a_loader_that_was_there_before_is_again(model: ModelReference, config: MergeConfiguration):
    before = LoaderCache().get(model)
    with lend_merge_loaders(config, MergeOptions(cuda=True)):
        assert LoaderCache().get(model) is not before
    assert LoaderCache().loaders.pop(model) is before


def test_adapters_stay_in_factors(tmp_path: Path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    save_file(peft_adapters.toy().state_dict(), base / "model.safetensors")
    (base / "config.json").write_text(
        '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    )
    peft_adapters.write(adapter, ["square"])
    config = MergeConfiguration.model_validate(
        {
            "merge_method": "drm",
            "base_model": str(base),
            "models": [{"model": f"{base}+{adapter}"}],
        }
    )
    options = MergeOptions(cuda=True)
    with lend_merge_loaders(config, options):
        tuned, before = (
            LoadTensor(model=model, tensor="square.weight").execute()
            for model in (config.models[0].model, config.base_model)
        )
        assert (type(before), type(tuned)) == (HostTensor, AdaptedTensor)
        assert torch.equal(tuned.base_in(tuned.dtype), before.stored)
        moved = [tensor.to("meta", non_blocking=True) for tensor in (before, tuned)]
        assert [type(tensor) for tensor in moved] == [HostTensor, AdaptedTensor]
    assert not LoaderCache.loaders.keys() & config.referenced_models()


def test_on_the_cpu_nothing_changes(model: ModelReference, config: MergeConfiguration):
    with lend_merge_loaders(config, MergeOptions()):
        tensor = LoadTensor(model=model, tensor="weight").execute()
    assert type(tensor) is torch.Tensor
    assert model not in LoaderCache().loaders


def test_on_several_gpus_they_stay_in_main_memory_too(
    model: ModelReference, config: MergeConfiguration, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with lend_merge_loaders(config, MergeOptions(multi_gpu=True)):
        assert type(LoadTensor(model=model, tensor="weight").execute()) is HostTensor
