"""What a merge takes."""

from __future__ import annotations

import shutil

import pytest
from mergekit.merge_methods.base import MergeMethod
from support import checkpoints
from support.planted_faults import Workshop, checked
from support.recipe_builders import recipe as plain_recipe

from mergekit_spectral.checking import estimate
from mergekit_spectral.checking.timing import Speeds


def test_memory_is_what_is_mapped_and_held(workshop: Workshop):
    costs = {
        method: checked(workshop.recipe(method, weight=1.0), workshop.folder).costs
        for method in ("ties", "drm", "star")
    }
    tensors = checkpoints.tensors(workshop.family.base)
    size = sum(tensor.nbytes for tensor in tensors.values())
    for found in costs.values():
        assert found is not None
        # All but what comes after the last matrix.
        assert 3.8 * size < found.memory.mapped <= 4 * size
        assert found.memory.device == 0
    on_device = checked(workshop.recipe(), workshop.folder, device="cuda").costs
    assert on_device is not None
    assert 0 < on_device.memory.device < on_device.memory.host


def test_inputs_of_mergekits_own_methods_go_to_the_device(workshop: Workshop):
    recipe = workshop.recipe("ties", weight=1.0)
    costs = checked(recipe, workshop.folder, device="cuda").costs
    assert costs is not None
    largest = max(t.nbytes for t in checkpoints.tensors(workshop.family.base).values())
    # Base, three inputs and result, besides what the method holds.
    assert costs.memory.device > 5 * largest
    assert costs.memory.device == (5 + 3 * 3) * largest + 12 * largest // 4


def test_shards_are_mapped_one_at_a_time(workshop: Workshop):
    model = checkpoints.llama()
    family = checkpoints.write_family(workshop.folder, model, max_shard_size="20KB")
    shards = sorted(path.stat().st_size for path in family.base.glob("*.safetensors"))
    assert len(shards) > 3
    costs = checked(plain_recipe("drm", family), workshop.folder).costs
    assert costs is not None
    assert costs.memory.mapped <= 4 * shards[-1]


@pytest.mark.parametrize(
    ("method", "times"), [("ties", 0), ("knots_ties", 1), ("star", 3), ("actmat", 1)]
)
def test_decompositions_are_counted(method: str, times: int, workshop: Workshop):
    costs = checked(workshop.recipe(method, weight=1.0), workshop.folder).costs
    assert costs is not None
    matrices = [n for n in checkpoints.tensors(workshop.family.base) if n.endswith("_proj.weight")]
    assert costs.decompositions == times * len(matrices)
    assert costs.seconds > 0


def test_weights_that_no_adapter_changes_take_nothing(workshop: Workshop):
    adapter = checkpoints.write_adapter(
        workshop.folder / "a", checkpoints.llama(), 1, ["q_proj"], rank=2
    )
    recipe = workshop.lora_recipe("iso", adapter)
    costs = checked(recipe, workshop.folder).costs
    assert costs is not None
    assert costs.decompositions == checkpoints.DECODER["num_hidden_layers"]
    elsewhere = {**recipe, "base_model": str(workshop.family.tuned[0])}
    costs = checked(elsewhere, workshop.folder).costs
    assert costs is not None
    names = checkpoints.tensors(workshop.family.base)
    assert costs.decompositions == sum(name.endswith("_proj.weight") for name in names)


def test_measuring_the_machine_is_not_part_of_the_merge(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    clock = [1.0]

    def measure_slowly(method: MergeMethod, inputs: int) -> Speeds:
        clock[0] += 1000
        return Speeds(products=1e9, cubes=1e9, entries=1e9)

    monkeypatch.setattr(estimate, "measure_speeds", measure_slowly)
    monkeypatch.setattr(estimate.time, "process_time", lambda: clock[0])
    costs = checked(workshop.recipe(), workshop.folder).costs
    assert costs is not None
    assert 1 <= costs.seconds < 10


def test_a_full_disk(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(workshop.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    (full,) = checked(workshop.recipe(), workshop.folder).findings
    assert full.severity == "error"
    assert "has 0.0 MB left" in full.message
