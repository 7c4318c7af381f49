"""The takeaways and suggestions for inputs with known properties."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.inspections import SHAPE, dense, inspection, low_rank
from support.matrices import gaussian, orthogonal

from mergekit_spectral.inspecting.suggestions import BEST_SCALES, RECOMMENDED, suggestions
from mergekit_spectral.inspecting.summary import mean_over_weights, mean_pairs, worst_conflicts
from mergekit_spectral.inspecting.tables import input_rows
from mergekit_spectral.inspecting.takeaways import takeaways


def test_inputs_of_equal_size_and_orthogonal():
    first, *others = takeaways(inspection(dense(*gaussian(SHAPE, 3))))
    start = "The updates have about the same size: their norms differ by a factor of at most 1."
    assert first.startswith(start)
    assert first.endswith("% of the base's.")
    assert any("nearly orthogonal" in sentence for sentence in others)
    (signs,) = [sentence for sentence in others if "same sign" in sentence]
    assert re.match(r"Two updates have the same sign in (49|50|51)% of the weights", signs)
    assert others[-1] == "No input changes 1 tensor: model.norm.weight."


@pytest.mark.parametrize(
    ("factor", "takeaway"),
    [
        (30, "input-b is an outlier: the norm of its update is "),
        (3, "The updates differ in size: the norm for input-b is 3."),
    ],
)
def test_one_larger_input(factor: float, takeaway: str):
    a, b, c = gaussian(SHAPE, 3)
    found = inspection(dense(a, factor * b, c))
    assert takeaways(found)[0].startswith(takeaway)
    weight = next(s for s in suggestions(found) if s.name == "weight")
    assert "input-b" in weight.value
    shares = [float(part.split(" for ")[0]) for part in weight.value.split(", ")]
    assert shares[1] == pytest.approx(1 / factor, rel=0.3)


def test_one_of_two_inputs_is_an_outlier():
    a, b = gaussian(SHAPE, 2)
    found = inspection(dense(a, 20 * b))
    assert takeaways(found)[0].startswith("input-b is an outlier: the norm of its update is ")
    (weight,) = [s for s in suggestions(found) if s.name == "weight"]
    assert re.fullmatch(r"1 for input-a, 0\.0\d+ for input-b", weight.value)


@pytest.mark.parametrize(
    ("method", "count", "lora", "scale"),
    [
        ("drm", 3, True, [("1.7", "with two adapters of a small model, 0.7 to 1.7 was best")]),
        ("iso", 7, True, [("0.4", "For five adapters, tuning chose λ = 0.4 in two of three")]),
        ("iso", 4, True, [("1", "For four adapters, `iso` kept 83%")]),
        ("ties", 8, True, [("0.4", "with ten adapters of a small model, 0.4 was best")]),
        ("iso", 4, False, [("1.7", "with five full fine-tunes of a small model, 1.7 was best")]),
        ("star", 8, False, [("1", "with ten full fine-tunes of a small model, 1 was best")]),
        ("tsvm", 8, False, [("1.7", "with ten full fine-tunes of a small model, 1.7 was best")]),
        ("actmat", 5, False, [("1", "For five full fine-tunes")]),
        ("actmat", 2, True, []),
        ("tsvm", 8, True, [("0.2", "with ten adapters of a small model, 0.2 was best")]),
        ("breadcrumbs", 3, False, []),
    ],
)
def test_suggested_lambda_and_eta(
    method: str, count: int, lora: bool, scale: list[tuple[str, str]]
):
    found = inspection(dense(*gaussian(SHAPE, count)), lora=lora)
    suggested = suggestions(replace(found, method=method))
    scales = [s for s in suggested if s.name == "lambda"]
    assert [s.value for s in scales] == [value for value, _ in scale]
    for suggestion, (_, reason) in zip(scales, scale, strict=True):
        assert reason in suggestion.reason
    assert [s.value for s in suggested if s.name == "eta"] == ["40"] * (method == "star")


@pytest.mark.parametrize(
    ("method", "count", "lora", "density"),
    [
        ("knots_ties", 3, True, ["0.2"]),
        ("knots_ties", 8, True, ["1.0"]),
        ("knots_ties", 8, False, ["0.2"]),
        ("drm", 3, True, []),
    ],
)
def test_suggested_density_of_knots(method: str, count: int, lora: bool, density: list[str]):
    found = inspection(dense(*gaussian(SHAPE, count)), lora=lora)
    suggested = suggestions(replace(found, method=method))
    assert [s.value for s in suggested if s.name == "density"] == density


def test_best_lambdas_agree_with_the_docs():
    text = (Path(__file__).parents[2] / "docs" / "quality.md").read_text()
    _, _, text = text.partition("## Which λ")
    for lora, part in ((True, text.partition("Full")[0]), (False, text.partition("Full")[2])):
        rows = re.findall(r"^\| (\w+) \| [\d.]+ \| (.*) \| (.*) \| (.*) \|$", part, re.M)
        chosen = {
            name: {
                size: tuple(map(float, re.findall(r"[\d.]+", cell)))
                for size, cell in zip((2, 5, 10), cells, strict=True)
                if cell != "–"
            }
            for name, *cells in rows[: len(BEST_SCALES)]
        }
        assert chosen == {method: best[lora] for method, best in BEST_SCALES.items()}


def test_recommendations_agree_with_the_docs():
    text = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text()
    rows = re.findall(r"^\| (?:two to four|five or more) [^|]*\| ([^|]*) \|", text, re.M)
    few, many, few_full, many_full = rows
    by_lora = {
        lora: {size: (each.method, each.scale) for size, each in sizes.items()}
        for lora, sizes in RECOMMENDED.items()
    }
    assert few == "`iso`, `lambda: 1.0`"
    assert many.startswith("`iso`, `lambda: 0.4` for five and 0.2 for ten")
    assert few_full == "`tsvm`, `lambda: 1.0`"
    assert many_full == "`actmat`, `lambda: 1.0`"
    assert by_lora[True] == {2: ("iso", 1.0), 5: ("iso", 0.4), 10: ("iso", 0.2)}
    assert by_lora[False] == {2: ("tsvm", 1.0), 5: ("actmat", 1.0), 10: ("actmat", 1.0)}


def test_effective_rank_is_compared_with_the_full_rank():
    found = inspection(dense(*gaussian((120, 200), 2)))
    (sentence,) = [sentence for sentence in takeaways(found) if "effective rank" in sentence]
    assert " of 120 on average" in sentence


def test_inputs_with_similar_directions():
    shared, *own = gaussian(SHAPE, 4)
    found = inspection(dense(*(2 * shared + noise for noise in own)))
    assert any("similar directions: their mean cosine is 0.8" in s for s in takeaways(found))


def test_conflicting_inputs():
    a, b, c = gaussian(SHAPE, 3)
    found = inspection(dense(a, b, c - a))
    (sentence,) = [s for s in takeaways(found) if "conflict" in s]
    assert sentence.startswith(
        "Some updates conflict: input-a and input-c have a mean cosine of -0."
    )


def test_worst_conflict_is_found():
    a, b = gaussian(SHAPE, 2)
    found = inspection(dense(a, b), dense(a, b - 2 * a), dense(a, b))
    (worst, *_) = worst_conflicts(found, 3)
    assert worst.weight == "model.layers.1.mlp.up_proj.weight"
    assert worst.inputs == (1, 0)
    assert worst.cosine < -0.8


def test_layers_that_no_input_changes():
    found = inspection(dense(*gaussian(SHAPE, 2)))
    names = ("model.layers.0.norm.weight", "model.layers.4.norm.weight", "model.norm.weight")
    sentences = takeaways(replace(found, unchanged=names))
    assert sentences[-1] == "No input changes layer 4."


def test_adapters_that_started_from_the_same_random_factor():
    Bs, (A,) = gaussian((SHAPE[0], 4), 3), gaussian((4, SHAPE[1]), 1)
    (sentence,) = [
        sentence
        for sentence in takeaways(inspection(low_rank(*((B, A) for B in Bs)), lora=True))
        if "output directions" in sentence
    ]
    assert "leading input directions are mostly the same (overlap 1.00" in sentence
    assert sentence.endswith("were usually trained from the same random A.")


def test_renormalization_if_one_input_has_most_of_the_norm():
    a, b = gaussian(SHAPE, 2)
    (sentence,) = [s for s in takeaways(inspection(dense(a, 0.1 * b))) if "renormalization" in s]
    # Nearly all of the largest entries are the other input's.
    start = r"Without its renormalization, DRM would prune (9\d|100)% of the entries of input-b"
    assert re.match(start, sentence)
    assert re.search(r"With renormalization it prunes (79|80|81)% of the entries\.$", sentence)


@pytest.mark.parametrize(
    ("weak", "pattern"),
    [
        (
            0.05,
            r"Without its renormalization, DRM would prune 50% of the rows .* in all inputs to the "
            r"same extent\. With renormalization it prunes 0%\.",
        ),
        (1.0, "Renormalization changes little for these inputs: "),
    ],
)
def test_renormalization_if_each_input_has_its_own_directions(weak: float, pattern: str):
    left, right = orthogonal(SHAPE[0]), orthogonal(SHAPE[1])
    one = torch.outer(left[0], right[0]) + weak * torch.outer(left[1], right[1])
    other = weak * torch.outer(left[0], right[2]) + torch.outer(left[1], right[3])
    (sentence,) = [s for s in takeaways(inspection(dense(one, other))) if "enormalization" in s]
    assert re.match(pattern, sentence)


def test_single_input():
    found = inspection(dense(*gaussian(SHAPE, 1)))
    assert suggestions(found) == []
    assert not any("Two updates" in sentence for sentence in takeaways(found))


def test_inputs_that_change_nothing():
    zero = torch.zeros(SHAPE)
    assert takeaways(inspection(dense(zero, zero))) == [
        "No input changes any tensor, so a merge gives the base model."
    ]


def test_input_that_does_not_change_a_weight():
    a, b = gaussian(SHAPE, 2)
    found = inspection(dense(a, torch.zeros(SHAPE)), dense(a, b))
    only_a, both = found.weights
    assert only_a.norms[1] == 0
    assert {only_a.effective_ranks[1], only_a.spectra[1], only_a.pruned[1]} == {None}
    assert only_a.cosines[0][1] is None
    assert only_a.overlap_out[1] == (None, None)
    assert mean_over_weights(found, lambda w: w.stable_ranks)[1] == both.stable_ranks[1]
    assert mean_pairs(found, lambda w: w.agreement)[0][1] == both.agreement[0][1]
    assert (
        "Of the 2 changed matrices, all inputs change 1, and only one input changes 1. Values of "
        "pairs are computed from the matrices that both inputs change." in takeaways(found)
    )


def test_inputs_that_change_different_weights():
    (a, b), zero = gaussian(SHAPE, 2), torch.zeros(SHAPE)
    found = inspection(dense(a, zero), dense(zero, b))
    text = " ".join(takeaways(found))
    assert "all inputs change 0, and only one input changes 2." in text
    assert not any(word in text for word in ("cosine", "overlap", "same sign", "nan"))
    assert suggestions(found)
    assert input_rows(found)[0][2] == "1"


def test_input_that_equals_the_base():
    (a, b), zero = gaussian(SHAPE, 2), torch.zeros(SHAPE)
    sentences = takeaways(inspection(dense(a, zero, b)))
    assert sentences[0] == "input-b changes nothing."
    norms = [float(matrix.norm()) for matrix in (a, b)]
    assert f", and are about {sum(norms) / 200:.1%} of the base's." in sentences[1]


def test_overlap_by_chance_is_not_reported_as_similar():
    found = inspection(dense(*gaussian((18, 20), 2)))
    (sentence,) = [s for s in takeaways(found) if "output directions" in s]
    assert sentence.startswith("Their leading output directions are different (overlap 0.8")
