"""What is said of inputs that were made to be so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.matrices import gaussian, orthogonal
from torch import Tensor

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.page import input_rows
from mergekit_spectral.inspecting.suggestions import SCALES, suggestions
from mergekit_spectral.inspecting.summary import mean_over_weights, mean_pairs, worst_conflicts
from mergekit_spectral.inspecting.takeaways import takeaways
from mergekit_spectral.inspecting.weights import inspect_weight
from mergekit_spectral.spectral import Delta, DenseDelta, FactoredDelta

SHAPE = (40, 56)


def inspection(*weights: Sequence[Delta], lora: bool = False) -> Inspection:
    count = len(weights[0])
    found = (
        inspect_weight(f"model.layers.{number}.mlp.up_proj.weight", deltas, 100.0)
        for number, deltas in enumerate(weights)
    )
    inputs = tuple(f"lab/input-{name}" for name in "abcdefgh"[:count])
    return Inspection(
        recipe="recipe.yml",
        method="drm",
        base="lab/base",
        inputs=inputs,
        lora=lora,
        weights=tuple(weight for weight in found if weight),
        others=(),
        unchanged=("model.norm.weight",),
        left_out=(),
    )


def dense(*matrices: Tensor) -> list[Delta]:
    return [DenseDelta(matrix.float()) for matrix in matrices]


def low_rank(*pairs: tuple[Tensor, Tensor]) -> list[Delta]:
    return [FactoredDelta(B.float(), A.float()) for B, A in pairs]


def test_inputs_alike_and_orthogonal():
    first, *others = takeaways(inspection(dense(*gaussian(SHAPE, 3))))
    assert first.startswith("The updates are of about the same size, within a factor of 1.")
    assert "of the base's weights." in first
    assert any("nearly orthogonal" in sentence for sentence in others)
    (signs,) = [sentence for sentence in others if "same sign" in sentence]
    assert re.match(r"Two updates have the same sign in (49|50|51)% of the weights", signs)
    assert others[-1] == "No input changes 1 tensor: model.norm.weight."


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (30, "input-b is an outlier: its update is "),
        (3, "The updates are of uneven size: that of input-b is 3."),
    ],
)
def test_an_input_that_is_larger(factor: float, told: str):
    a, b, c = gaussian(SHAPE, 3)
    found = inspection(dense(a, factor * b, c))
    assert takeaways(found)[0].startswith(told)
    weight = next(s for s in suggestions(found) if s.name == "weight")
    assert "input-b" in weight.value
    shares = [float(part.split(" for ")[0]) for part in weight.value.split(", ")]
    assert shares[1] == pytest.approx(1 / factor, rel=0.3)


def test_of_two_inputs_one_can_be_an_outlier():
    a, b = gaussian(SHAPE, 2)
    found = inspection(dense(a, 20 * b))
    assert takeaways(found)[0].startswith("input-b is an outlier: its update is ")
    (weight,) = [s for s in suggestions(found) if s.name == "weight"]
    assert re.fullmatch(r"1 for input-a, 0\.0\d+ for input-b", weight.value)


@pytest.mark.parametrize(
    ("method", "count", "lora", "scale"),
    [
        ("drm", 3, True, ["1.0"]),
        ("drm", 8, True, ["0.4"]),
        ("drm", 3, False, ["1.7"]),
        ("knots_dare_ties", 8, True, ["0.1"]),
        ("star", 8, False, ["1.0"]),
        ("breadcrumbs", 3, False, []),
    ],
)
def test_the_scale_is_what_was_measured(method: str, count: int, lora: bool, scale: list[str]):
    found = inspection(dense(*gaussian(SHAPE, count)), lora=lora)
    told = suggestions(replace(found, method=method))
    assert [s.value for s in told if s.name == "lambda"] == scale
    assert [s.value for s in told if s.name == "eta"] == ["40"] * (method == "star")


@pytest.mark.parametrize(
    ("method", "count", "lora", "density"),
    [
        ("knots_ties", 3, True, ["0.2"]),
        ("knots_ties", 8, True, ["1.0"]),
        ("knots_ties", 8, False, ["0.2"]),
        ("drm", 3, True, []),
    ],
)
def test_a_density_of_knots(method: str, count: int, lora: bool, density: list[str]):
    found = inspection(dense(*gaussian(SHAPE, count)), lora=lora)
    told = suggestions(replace(found, method=method))
    assert [s.value for s in told if s.name == "density"] == density


def test_measured_scales_are_those_in_the_docs():
    """Each start is one that was chosen, and the ranges are of all that were."""
    text = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text()
    _, _, text = text.partition("## Which λ")
    for lora, part in ((True, text.partition("Full")[0]), (False, text.partition("Full")[2])):
        rows = re.findall(r"^\| (\w+) \| [\d.]+ \| (.*) \| (.*) \| (.*) \|$", part, re.M)
        chosen = {
            name: [set(map(float, c.split(", "))) for c in cells] for name, *cells in rows[:8]
        }
        assert chosen.keys() == SCALES.keys()
        for method, (two, five, ten) in chosen.items():
            for many, values in ((False, two | five), (True, ten)):
                start, told = SCALES[method][lora, many]
                ends = [float(end) for end in told.split(" to ")]
                assert start in values
                assert (ends[0], ends[-1]) == (min(values), max(values))


def test_ranks_are_counted_whole():
    found = inspection(dense(*gaussian((120, 200), 2)))
    (told,) = [sentence for sentence in takeaways(found) if "effective rank" in sentence]
    assert " of 120 on average" in told


def test_inputs_that_agree():
    shared, *own = gaussian(SHAPE, 4)
    found = inspection(dense(*(2 * shared + noise for noise in own)))
    assert any("point much the same way: their mean cosine is 0.8" in s for s in takeaways(found))


def test_inputs_that_fight():
    a, b, c = gaussian(SHAPE, 3)
    found = inspection(dense(a, b, c - a))
    (told,) = [s for s in takeaways(found) if "pull apart" in s]
    assert told.startswith("Some updates pull apart: input-a and input-c have a mean cosine of -0.")


def test_where_inputs_fight_is_told():
    a, b = gaussian(SHAPE, 2)
    found = inspection(dense(a, b), dense(a, b - 2 * a), dense(a, b))
    (worst, *_) = worst_conflicts(found, 3)
    assert worst.weight == "model.layers.1.mlp.up_proj.weight"
    assert worst.inputs == (1, 0)
    assert worst.cosine < -0.8


def test_layers_that_nobody_changes():
    found = inspection(dense(*gaussian(SHAPE, 2)))
    names = ("model.layers.0.norm.weight", "model.layers.4.norm.weight", "model.norm.weight")
    told = takeaways(replace(found, unchanged=names))
    assert told[-1] == "No input changes layer 4."


def test_adapters_of_one_random_start():
    Bs, (A,) = gaussian((SHAPE[0], 4), 3), gaussian((4, SHAPE[1]), 1)
    (told,) = [
        sentence
        for sentence in takeaways(inspection(low_rank(*((B, A) for B in Bs)), lora=True))
        if "They write to" in sentence
    ]
    assert "read from mostly the same ones (1.00" in told
    assert told.endswith("were usually trained from the same random A.")


def test_renormalization_where_one_input_has_most_of_the_norm():
    a, b = gaussian(SHAPE, 2)
    (told,) = [s for s in takeaways(inspection(dense(a, 0.1 * b))) if "renormalization" in s]
    # Of the entries that are kept hardly any would be its own.
    assert re.match(r"Without DRM's renormalization input-b would lose (9\d|100)%", told)
    assert re.search(r"with it, (79|80|81)% of the entries\.$", told)


@pytest.mark.parametrize(
    ("weak", "told"),
    [
        (
            0.05,
            r"Without DRM's renormalization 50% of the rows .* alike in all inputs; with it, 0%",
        ),
        (1.0, "Renormalization changes little here: at density 0.2 "),
    ],
)
def test_renormalization_where_inputs_have_directions_of_their_own(weak: float, told: str):
    left, right = orthogonal(SHAPE[0]), orthogonal(SHAPE[1])
    one = torch.outer(left[0], right[0]) + weak * torch.outer(left[1], right[1])
    other = weak * torch.outer(left[0], right[2]) + torch.outer(left[1], right[3])
    (sentence,) = [s for s in takeaways(inspection(dense(one, other))) if "enormalization" in s]
    assert re.match(told, sentence)


def test_one_input_alone():
    found = inspection(dense(*gaussian(SHAPE, 1)))
    assert suggestions(found) == []
    assert not any("Two updates" in sentence for sentence in takeaways(found))


def test_inputs_that_change_nothing():
    zero = torch.zeros(SHAPE)
    assert takeaways(inspection(dense(zero, zero))) == [
        "No input changes any tensor, so a merge is the base model."
    ]


def test_an_input_that_leaves_a_weight_alone():
    a, b = gaussian(SHAPE, 2)
    found = inspection(dense(a, torch.zeros(SHAPE)), dense(a, b))
    alone, both = found.weights
    assert alone.norms[1] == 0
    assert {alone.effective_ranks[1], alone.spectra[1], alone.pruned[1]} == {None}
    assert alone.cosines[0][1] is None
    assert alone.overlap_out[1] == (None, None)
    assert mean_over_weights(found, lambda w: w.stable_ranks)[1] == both.stable_ranks[1]
    assert mean_pairs(found, lambda w: w.agreement)[0][1] == both.agreement[0][1]
    assert (
        "Of the 2 matrices that are changed, 1 are by all inputs and 1 by one alone; what is said "
        "of pairs is of what both change." in takeaways(found)
    )


def test_inputs_that_have_no_weight_in_common():
    (a, b), zero = gaussian(SHAPE, 2), torch.zeros(SHAPE)
    found = inspection(dense(a, zero), dense(zero, b))
    told = " ".join(takeaways(found))
    assert "0 are by all inputs and 2 by one alone" in told
    assert not any(word in told for word in ("cosine", "overlap", "same sign", "nan"))
    assert suggestions(found)
    assert input_rows(found)[0][2] == "1"


def test_an_input_that_is_the_base():
    (a, b), zero = gaussian(SHAPE, 2), torch.zeros(SHAPE)
    told = takeaways(inspection(dense(a, zero, b)))
    assert told[0] == "input-b changes nothing at all."
    norms = [float(matrix.norm()) for matrix in (a, b)]
    assert f", about {sum(norms) / 200:.1%} of the base's weights." in told[1]


def test_overlaps_by_chance_are_no_agreement():
    found = inspection(dense(*gaussian((18, 20), 2)))
    (told,) = [sentence for sentence in takeaways(found) if "They write to" in sentence]
    assert told.startswith("They write to different directions (overlap of the leading ones 0.8")
