"""Faults of models that are not there, or cannot be read."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from support import checkpoints, hub
from support.planted_faults import (
    Fault,
    Workshop,
    assert_found,
    checked,
    numbered,
    quantize,
    removed,
    repacked,
    truncated,
    with_foreign_adapter,
    with_garbage,
)

FAULTS: dict[str, Fault] = {
    "a name that no file can have": (
        lambda w: w.with_model("m" * 300),
        "error",
        "and it is not a valid Hub id",
        "models[3].model",
    ),
    "quantized weights": (
        lambda w: repacked(w, quantize),
        "error",
        "Tensor model.layers.0.self_attn.q_proj.weight of model ",
        "models[3].model",
    ),
    "a path to nothing": (
        lambda w: w.with_model("./nowhere"),
        "error",
        "Model ./nowhere not found (working directory ",
        "models[3].model",
    ),
    "a model not downloaded": (
        lambda w: w.with_model("some-lab/some-model"),
        "warning",
        "some-lab/some-model is neither a local folder nor downloaded; if it is on the Hub",
        "models[3].model",
    ),
    "an adapter that is not there": (
        lambda w: w.lora_recipe(adapter=w.folder / "nowhere"),
        "error",
        "nowhere not found (working directory ",
        "models[0].model",
    ),
    "an adapter as a model": (
        lambda w: w.with_model(w.adapter),
        "error",
        "is an adapter; write it after the model that it was trained on",
        "models[3].model",
    ),
    "no config": (
        lambda w: w.with_model(removed(w.copied(w.family.tuned[0]), "config.json")),
        "error",
        "has no config.json",
        "models[3].model",
    ),
    "no architecture": (
        lambda w: w.with_model(w.configured(w.family.tuned[0], architectures=None)),
        "error",
        "does not name exactly one architecture",
        "models[3].model",
    ),
    "no weights": (
        lambda w: w.with_model(removed(w.copied(w.family.tuned[0]), "model.safetensors")),
        "error",
        "has no weights that mergekit reads",
        "models[3].model",
    ),
    "a truncated file": (
        lambda w: w.with_model(truncated(w.copied(w.family.tuned[0]))),
        "error",
        "copy or download it again",
        "models[3].model",
    ),
    "weights that are none": (
        lambda w: w.with_model(with_garbage(w)),
        "error",
        "has no weights that mergekit reads",
        "models[3].model",
    ),
    "an index that names no file": (
        lambda w: w.with_model(numbered(w.copied(w.family.tuned[0]))),
        "error",
        "maps tensor lm_head.weight to 3, which is not a file name",
        "models[3].model",
    ),
    "an adapter of another model": (
        lambda w: with_foreign_adapter(w, num_hidden_layers=5),
        "error",
        "it changes 5 weights, of which the base has 3 and lacks 2",
        "models[0].model",
    ),
    "an adapter of another size": (
        lambda w: with_foreign_adapter(w, hidden_size=64),
        "error",
        "give the base that the adapter was trained on, of the same size",
        "models[0].model",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)


def test_folders_are_never_looked_up_on_the_hub(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    """Also where their names could be those of models there."""

    def fails(*_: Any) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(socket.socket, "connect", fails)
    monkeypatch.setattr(socket, "getaddrinfo", fails)
    monkeypatch.chdir(workshop.folder)
    for source, name in zip((workshop.family.base, *workshop.family.tuned), "abcd", strict=True):
        shutil.copytree(source, workshop.folder / "lab" / name)
    shutil.copytree(workshop.adapter, workshop.folder / "adapter")
    models = [{"model": f"lab/{name}"} for name in "bcd"] + [{"model": "lab/a+adapter"}]
    report = checked({**workshop.recipe(), "base_model": "lab/a", "models": models}, Path())
    assert not report.failed
    assert report.costs is not None


def test_folders_beside_the_recipe_are_pointed_out(workshop: Workshop):
    shutil.copytree(workshop.family.base, workshop.folder / "models" / "mine")
    (found,) = checked(workshop.with_model("models/mine"), workshop.folder).findings
    assert (
        f"it is in the folder of the recipe, so run mergekit in {workshop.folder}" in found.message
    )


def test_a_revision_that_is_not_downloaded(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(workshop.folder / "hub"))
    hub.store(workshop.folder / "hub", "lab/model", "main", workshop.copied(workshop.family.base))
    (found,) = checked(workshop.with_model("lab/model@v2"), workshop.folder).findings
    assert "lab/model at revision v2 is neither a local folder nor downloaded" in found.message


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_what_is_downloaded_in_part_is_not_an_error(workshop: Workshop, hub_cache: Path):
    part = removed(workshop.copied(workshop.family.base), "model.safetensors")
    hub.store(hub_cache, "lab/model", "main", part)
    (found,) = checked(workshop.with_model("lab/model"), workshop.folder).findings
    assert found.severity == "warning"
    assert (
        "lab/model is neither a local folder nor downloaded; if it is on the Hub" in found.message
    )


def test_models_of_the_hub_that_mergekit_has_to_look_into(workshop: Workshop, hub_cache: Path):
    family = checkpoints.write_family(workshop.folder / "opt", checkpoints.opt(), count=1)
    checkpoints.write_tokenizer(family.base)
    for name, path in (("base", family.base), ("tuned", family.tuned[0])):
        hub.store(hub_cache, f"lab/{name}", "main", path)
    recipe = {"merge_method": "drm", "base_model": "lab/base", "models": [{"model": "lab/tuned"}]}
    report = checked(recipe, workshop.folder)
    assert report.findings == ()
    assert report.costs is not None
