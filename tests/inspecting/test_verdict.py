"""The verdict on inputs with known properties, and the recipe that follows from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.inspections import SHAPE, dense, inspection
from support.matrices import gaussian

from mergekit_spectral.inspecting.inspection import Inspection, OtherReport, SkippedTensor
from mergekit_spectral.inspecting.suggestions import suggestions
from mergekit_spectral.inspecting.verdict import Verdict, decide
from mergekit_spectral.inspecting.weights import inspect_weight


def answers(verdict: Verdict) -> dict[str, str]:
    return {each.question: each.answer for each in verdict.answers}


def reason(verdict: Verdict, question: str) -> str:
    return next(each.reason for each in verdict.answers if each.question == question)


@pytest.mark.parametrize(
    ("lora", "count", "headline"),
    [
        (True, 2, "Merge these 2 LoRA adapters with `iso` at λ = 1."),
        (True, 5, "Merge these 5 LoRA adapters with `iso` at λ = 0.4."),
        (True, 8, "Merge these 8 LoRA adapters with `iso` at λ = 0.2."),
        (False, 3, "Merge these 3 full fine-tunes with `tsvm` at λ = 1."),
    ],
)
def test_inputs_without_a_problem(lora: bool, count: int, headline: str):
    verdict = decide(inspection(dense(*gaussian(SHAPE, count)), lora=lora))
    assert verdict.headline == headline
    assert answers(verdict)["compatible"] == answers(verdict)["balanced"] == "yes"
    assert answers(verdict)["drop"] == "none"
    assert "docs/choosing.md" in reason(verdict, "method")
    assert verdict.changes is not None
    assert (verdict.changes.weights, verdict.changes.dropped) == ({}, [])


def test_lambda_is_that_of_the_suggestions():
    found = inspection(dense(*gaussian(SHAPE, 5)), lora=True)
    (scale,) = [s for s in suggestions(replace(found, method="iso")) if s.name == "lambda"]
    assert scale.value == answers(decide(found))["lambda"]


def test_a_copy_is_dropped():
    a, b, noise = gaussian(SHAPE, 3)
    verdict = decide(inspection(dense(a, b, 2 * a + 0.1 * noise), base_norm=1e4))
    assert verdict.headline.startswith("Drop input-c, and merge the other 2 full fine-tunes with ")
    assert "It is nearly a copy of input-a (cosine 1.00)" in reason(verdict, "drop")
    assert verdict.changes is not None
    assert verdict.changes.dropped == ["lab/input-c"]
    # Without the copy, the others have the same size.
    assert verdict.changes.weights == {}


def test_only_a_copy_is_left():
    (a,) = gaussian(SHAPE, 1)
    verdict = decide(inspection(dense(a, a)))
    assert verdict.headline == "Nothing to merge: use input-a as it is."
    assert verdict.changes is None


def test_an_input_that_changes_nothing_is_dropped():
    (a, b), zero = gaussian(SHAPE, 2), torch.zeros(SHAPE)
    found = inspection(dense(a, zero, b))
    assert reason(decide(found), "drop") == "It changes nothing."
    partly = replace(found, left_out=(SkippedTensor("model.layers.7.mlp.up_proj.weight", ""),))
    verdict = decide(partly)
    assert verdict.dropped == ()
    assert "input-b changes none of the inspected tensors" in reason(verdict, "balanced")


def test_an_input_that_hardly_changes_anything_is_dropped():
    a, b, c = gaussian(SHAPE, 3)
    verdict = decide(inspection(dense(a, 0.03 * b, c)))
    assert answers(verdict)["drop"] == "input-b"
    assert "hardly changes anything: its update has 3% of the size" in reason(verdict, "drop")
    assert answers(verdict)["balanced"] == "yes"


def test_an_input_of_a_single_slice_is_kept():
    a, b, c = dense(*gaussian(SHAPE, 3))
    with_all = inspect_weight("model.layers.0.mlp.up_proj.weight", [a, b, c], 1e4)
    without = inspect_weight("model.layers.1.mlp.up_proj.weight", [a, b, None], 1e4)
    assert with_all
    assert without
    # The update of input-c is a twelfth as large as the others'.
    found = replace(inspection([a, b, c]), weights=(with_all, *[without] * 143))
    assert decide(found).dropped == ()


def test_a_model_of_another_base_is_dropped():
    a, b, c = gaussian(SHAPE, 3)
    norm = float(a.norm())
    verdict = decide(inspection(dense(0.01 * a, 0.01 * b, 1.2 * c), base_norm=norm))
    assert answers(verdict)["drop"] == "input-c"
    assert "probably not fine-tuned from this base" in reason(verdict, "drop")


def test_no_input_is_of_this_base():
    verdict = decide(inspection(dense(*gaussian(SHAPE, 2)), base_norm=30.0))
    assert verdict.headline == (
        "Check `base_model`: no input seems to be a fine-tune of this base."
    )
    assert verdict.changes is None


@pytest.mark.parametrize(("factor", "outlier"), [(3, False), (30, True)])
def test_unbalanced_inputs_get_weights(factor: float, outlier: bool):
    a, b, c = gaussian(SHAPE, 3)
    verdict = decide(inspection(dense(a, factor * b, c), base_norm=1e6))
    assert answers(verdict)["balanced"] == "no"
    assert answers(verdict)["drop"] == "none"
    assert ("Check that it was fine-tuned" in reason(verdict, "balanced")) is outlier
    assert verdict.changes is not None
    assert verdict.changes.weights["lab/input-b"] == pytest.approx(1 / factor, rel=0.3)


def test_two_large_and_two_small_inputs_are_all_kept():
    a, b, c, d = gaussian(SHAPE, 4)
    verdict = decide(inspection(dense(a, b, 30 * c, 30 * d), base_norm=1e6))
    assert verdict.dropped == ()
    assert answers(verdict)["balanced"] == "no"


def test_conflicting_inputs():
    a, b, c = gaussian(SHAPE, 3)
    verdict = decide(inspection(dense(a, b, c - a), base_norm=1e4))
    assert answers(verdict)["compatible"] == "no"
    assert verdict.headline.endswith("but expect losses: input-a and input-c conflict.")
    assert "If one must go, it is input-" in reason(verdict, "compatible")


def test_large_weights_decide_whether_inputs_conflict():
    """Two inputs that cancel in a weight with tiny updates are compatible."""
    a, b, c, d = gaussian(SHAPE, 4)
    verdict = decide(inspection(dense(a, b), dense(0.01 * c, d * 0.001 - 0.01 * c)))
    assert answers(verdict)["compatible"] == "yes"


def test_similar_inputs():
    shared, *own = gaussian(SHAPE, 4)
    verdict = decide(inspection(dense(*(shared + noise for noise in own)), base_norm=1e4))
    assert "The updates are similar (mean cosine 0.5" in reason(verdict, "compatible")


def nothing(found: Inspection) -> Inspection:
    return replace(found, weights=())


def test_nothing_to_merge():
    found = inspection(dense(*gaussian(SHAPE, 2)))
    assert decide(nothing(found)).headline == (
        "No input changes any tensor, so a merge gives the base model."
    )
    assert decide(nothing(found)).changes is None
    single = decide(inspection(dense(*gaussian(SHAPE, 1))))
    assert single.headline == "Nothing to merge: input-a is the only input."
    assert single.changes is None


def test_inputs_that_change_different_tensors():
    (a, b), zero = gaussian(SHAPE, 2), torch.zeros(SHAPE)
    verdict = decide(inspection(dense(a, zero), dense(zero, b)))
    assert answers(verdict)["compatible"] == "yes"
    assert verdict.dropped == ()
    vectors = replace(
        inspection(dense(a, zero)), others=(OtherReport("model.norm.weight", (0.0, 30.0)),)
    )
    assert reason(decide(vectors), "compatible") == "They change different tensors."
