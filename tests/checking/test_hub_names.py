"""Local folders that mergekit's model card takes for models of the Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.planted_faults import Workshop, checked


@pytest.mark.parametrize(
    ("method", "options", "warned"),
    [
        ("ties", {}, True),
        ("ties", {"write_model_card": False}, False),
        ("drm", {}, False),
    ],
)
def test_folders_with_names_as_on_the_hub(
    method: str,
    options: dict[str, bool],
    warned: bool,
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(workshop.folder)
    shutil.copytree(workshop.family.base, "lab/model")
    recipe = {**workshop.recipe(method, weight=1.0), "base_model": "lab/model"}
    findings = checked(recipe, Path(), **options).findings
    assert [(f.severity, f.key) for f in findings] == [("warning", ("base_model",))] * warned
    assert all("asks the Hub for a model named lab/model" in f.message for f in findings)
