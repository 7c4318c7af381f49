"""Buffers that differ between models."""

from __future__ import annotations

import pytest
import torch
from support import checkpoints
from support.planted_faults import Workshop, checked
from support.recipe_builders import recipe as plain_recipe


@pytest.mark.parametrize("differs", [False, True])
def test_buffers_must_be_equal(differs: bool, workshop: Workshop):
    family = checkpoints.write_family(workshop.folder, checkpoints.llama(), count=1)
    checkpoints.write_tokenizer(family.base)
    name = "model.norm.weight"
    for number, path in enumerate((family.base, *family.tuned)):
        buffer = torch.arange(32) + number * differs
        checkpoints.write_tensors(path, {**checkpoints.tensors(path), name: buffer})
    findings = checked(plain_recipe("drm", family), workshop.folder).findings
    assert [(f.severity, f.key) for f in findings] == [("error", ("models", 0, "model"))] * differs
    assert all("it must be the same in all models" in f.message for f in findings)
