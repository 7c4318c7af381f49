"""Faults of the configuration that the merged model gets."""

from __future__ import annotations

import pytest
from support import checkpoints
from support.planted_faults import Fault, Workshop, assert_found, checked

from mergekit_spectral.recipe.text import dotted

FAULTS: dict[str, Fault] = {
    "a quantized base's configuration": (
        lambda w: {
            **w.recipe(),
            "base_model": str(
                w.configured(w.family.base, quantization_config={"quant_method": "gptq", "bits": 4})
            ),
        },
        "warning",
        "has a `quantization_config`, which the merged model gets",
        "base_model",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)


def test_a_base_that_ties_what_others_do_not(workshop: Workshop):
    """The merged lm_head is dropped when the model is loaded."""
    tied = checkpoints.llama(tie_word_embeddings=True)
    tied.save_pretrained(workshop.folder / "tied")
    base = str(workshop.folder / "tied")
    report = checked({**workshop.recipe(), "base_model": base}, workshop.folder)
    assert not report.failed
    found = [f for f in report.findings if "has an lm_head of its own" in f.message]
    assert [dotted(finding.key) for finding in found] == [f"models[{n}].model" for n in range(3)]
