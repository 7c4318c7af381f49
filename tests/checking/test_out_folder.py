"""The folder of the merged model."""

from __future__ import annotations

import os

import pytest
import yaml
from support.planted_faults import Workshop

from mergekit_spectral.checking.checks import check


@pytest.mark.parametrize("place", ["a model", "an adapter", "a file", "a folder that is read-only"])
def test_where_the_merged_model_cannot_go(
    place: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    (workshop.folder / "file").write_text("")
    model = workshop.family.tuned[1]
    where, severity, message = {
        "a model": (model, "warning", f"is the folder of {model}, which the merge overwrites"),
        "an adapter": (workshop.adapter, "warning", "which transformers adds to the model in the"),
        "a file": (workshop.folder / "file" / "out", "error", "file is a file; name a folder"),
        "a folder that is read-only": (workshop.folder / "out", "error", "is read-only"),
    }[place]  # fmt: skip
    if "read-only" in place:
        monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    path = workshop.folder / "recipe.yml"
    path.write_text(yaml.safe_dump(workshop.recipe()))
    (found,) = check(path, where).findings
    assert found.severity == severity
    assert message in found.message
