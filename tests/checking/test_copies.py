"""LoRA inputs that are merged into copies of their bases."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file
from support.planted_faults import (
    Fault,
    Workshop,
    assert_found,
    checked,
    first_input,
    of_another_architecture,
)

FAULTS: dict[str, Fault] = {
    "an adapter under mergekit's own method": (
        lambda w: first_input(w.lora_recipe("ties"), weight=1.0),
        "error",
        "into a copy of its base first, of ",
        "models[0].model",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)


def test_crimes_and_copies_can_be_allowed(workshop: Workshop):
    mixed = checked(of_another_architecture(workshop), workshop.folder, allow_crimes=True)
    assert mixed.findings == ()
    recipe = first_input(workshop.lora_recipe("ties"), weight=1.0)
    (copy,) = checked(recipe, workshop.folder, lora_merge_cache="copies").findings
    assert copy.severity == "note"


def test_copies_are_counted(workshop: Workshop):
    recipe = first_input(workshop.lora_recipe("ties"), weight=1.0)
    costs = checked(recipe, workshop.folder, lora_merge_cache="copies").costs
    base = workshop.family.base / "model.safetensors"
    adapter = workshop.adapter / "adapter_model.safetensors"
    weights = sum(weight.nbytes for weight in load_file(base).values())
    assert costs is not None
    assert costs.input_bytes == base.stat().st_size + adapter.stat().st_size
    assert costs.copy_bytes == weights
    options = {"lora_merge_cache": "copies", "lora_merge_dtype": "float16"}
    halved = checked(recipe, workshop.folder, **options).costs
    assert halved is not None
    assert halved.copy_bytes == weights // 2
    ours = checked(workshop.lora_recipe("drm"), workshop.folder).costs
    assert ours is not None
    assert ours.copy_bytes == 0


def test_room_for_copies_and_the_merge(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    recipe = first_input(workshop.lora_recipe("ties"), weight=1.0)
    copies = str(workshop.folder / "copies")
    base = (workshop.family.base / "model.safetensors").stat().st_size
    usage = shutil.disk_usage(workshop.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=3 * base // 2))
    _, full = checked(recipe, workshop.folder, lora_merge_cache=copies).findings
    assert full.severity == "error"
    assert full.message.startswith("the merged model and copies of LoRA inputs take ")
