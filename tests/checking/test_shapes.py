"""Tensors of different shapes."""

from __future__ import annotations

import pytest
import torch
from support import checkpoints
from support.planted_faults import (
    Fault,
    Workshop,
    assert_found,
    checked,
    of_another_vocabulary,
    of_another_width,
    repacked,
)

FAULTS: dict[str, Fault] = {
    "another width": (of_another_width, "error", "has different shapes from", "models[3].model"),
    "another vocabulary": (
        of_another_vocabulary,
        "error",
        "the vocabularies differ, ",
        "models[3].model",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)


def test_a_tokenizer_makes_vocabularies_agree(workshop: Workshop):
    recipe = of_another_vocabulary(workshop)
    checkpoints.write_tokenizer(workshop.folder / "larger")
    report = checked({**recipe, "tokenizer": {"source": "union"}}, workshop.folder)
    assert report.findings == ()


def test_a_tensor_without_entries(workshop: Workshop):
    name = "model.layers.0.mlp.up_proj.weight"
    recipe = repacked(workshop, lambda tensors: tensors.update({name: torch.zeros(0, 64)}))
    (found,) = checked({**recipe, "models": recipe["models"][-1:]}, workshop.folder).findings
    assert f"{name} as [0, 64] against [48, 32]" in found.message
    empty = str(recipe["models"][-1]["model"])
    alone = {**recipe, "base_model": empty, "models": [{"model": empty}]}
    assert not checked(alone, workshop.folder).failed
