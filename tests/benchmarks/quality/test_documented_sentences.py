"""Accuracies in sentences, and in tables of other pages, are those of the recorded results.

Sentences have fields, such as `{drm:.0f}`, for what is computed from the results.
"""

from __future__ import annotations

from itertools import chain, product
from statistics import fmean

import pytest
from support.documents import says, span, table
from support.recorded import (
    ADAPTERS,
    AT_ONE,
    FULL,
    TUNED,
    above_ties,
    analyses,
    kept,
    merged,
    merges,
    path,
    printed,
)

from benchmarks.quality.ranks.tables import Results
from benchmarks.quality.reporting.outcomes import SETTINGS, read_lines
from benchmarks.quality.training.settings import KINDS
from mergekit_spectral.inspecting.suggestions import RECOMMENDED

README, QUALITY, TUNE = "README.md", "docs/quality.md", "docs/tune.md"
CHOOSING, MANY, LORA = "docs/choosing.md", "docs/many-models.md", "docs/lora.md"
NEWER = ("iso", "tsvm", "actmat")
EVIDENCE = " ".join(each.evidence for sizes in RECOMMENDED.values() for each in sizes.values())
"""What `inspect` says with its recommendations."""


def assert_says(page: str, *sentences: str, **figures: object) -> None:
    """Fail with the sentences that a page does not have."""
    filled = (sentence.format(**figures) for sentence in sentences)
    says(page, *filled, text=EVIDENCE if page == "inspect" else None)


def percent(share: float) -> str:
    """A share in percent, without decimals."""
    return f"{100 * share:.0f}"


def some(figures: dict[str, float], *methods: str) -> list[float]:
    """The figures of some methods."""
    return [figures[method] for method in methods]


def test_ten_full_fine_tunes():
    ten = kept("actmat", FULL, 10)
    assert f"{ten['actmat']:.0f}" == f"{ten['tsvm']:.0f}"
    assert_says(
        README,
        "Of ten full fine-tunes of a 135M model, `actmat` keeps {actmat:.0f}% of the accuracy, "
        "`drm` {drm:.0f}% and `ties` {ties:.0f}%",
        **ten,
    )
    assert_says(
        "docs/index.md",
        "of ten full fine-tunes, `actmat` keeps {actmat:.0f}% of their accuracy, `drm` {drm:.0f}% "
        "and `ties` {ties:.0f}% (λ = 1)",
        **ten,
    )
    assert_says(
        CHOOSING,
        "ten: `actmat` and `tsvm` {tsvm:.0f}%, `iso` {iso:.0f}%, `drm` {drm:.0f}%, `ties` "
        "{ties:.0f}%",
        **ten,
    )
    assert_says(
        MANY,
        "`actmat` {actmat:.0f}%, `tsvm` {tsvm:.0f}%, `iso` {iso:.0f}%, `drm` {drm:.0f}%, `ties` "
        "{ties:.0f}% at λ = 1",
        **ten,
    )
    assert_says(
        "inspect",
        "`actmat` and `tsvm` kept {tsvm:.0f}% of the inputs' own accuracy, `iso` {iso:.0f}%, `drm` "
        "{drm:.0f}% and `ties` {ties:.0f}%",
        **ten,
    )


def test_five_full_fine_tunes():
    at_one, tuned = (kept("actmat", FULL, 5, setting) for setting in SETTINGS)
    assert_says(
        CHOOSING,
        "five at λ = 1: `actmat` {actmat:.0f}%, `tsvm` {tsvm:.0f}%, `iso` {iso:.0f}%, `drm` "
        "{drm:.0f}%;",
        **at_one,
    )
    assert_says(
        "inspect",
        "`actmat` kept {actmat:.0f}% of the fine-tunes' own accuracy, `tsvm` {tsvm:.0f}%, `iso` "
        "{iso:.0f}% and `drm` {drm:.0f}%",
        **at_one,
    )
    assert_says(MANY, f"{span(some(tuned, *NEWER))}% of five full fine-tunes")


def test_four_inputs_are_those_of_the_table():
    rows = table(QUALITY, "An earlier run", 1).rows
    lora, full = ({row[0].split()[0].strip(","): float(row[at]) for row in rows} for at in (1, 3))
    assert_says(CHOOSING, "four adapters: `iso` {iso:.0f}%, `ties` {ties:.0f}%", **lora)
    assert_says(
        "inspect",
        "`iso` kept {iso:.0f}% of the adapters' own accuracy and `ties` {ties:.0f}%",
        **lora,
    )
    assert_says(
        "docs/inspect.md",
        "For four adapters, `iso` kept {iso:.0f}% of the adapters' own "
        "accuracy and `ties` {ties:.0f}%",
        **lora,
    )
    assert_says(
        CHOOSING,
        "four at λ = 1: `tsvm` {tsvm:.0f}%, `iso` {iso:.0f}%, `drm` {drm:.0f}%, `ties` {ties:.0f}%",
        **full,
    )
    assert_says(
        "inspect",
        "`tsvm` kept {tsvm:.0f}% of the fine-tunes' own accuracy, `drm` "
        "{drm:.0f}% and `ties` {ties:.0f}%",
        **full,
    )


def test_ten_and_five_adapters():
    at_one, tuned = (kept("new-methods", ADAPTERS, 10, setting) for setting in SETTINGS)
    assert_says(
        CHOOSING, "ten at λ = 1: `knots_ties` {knots_ties:.0f}%, `iso` {iso:.0f}%", **at_one
    )
    assert_says(MANY, "at λ = 1, `knots_ties` {knots_ties:.0f}%, `iso` {iso:.0f}%", **at_one)
    assert_says(MANY, "`iso` and `tsvm` {iso:.0f}% with tuned λ;", **tuned)
    assert_says(MANY, "`iso` and `tsvm` {tsvm:.0f}% with tuned λ;", **tuned)
    assert_says(
        "inspect",
        "`iso` kept only {iso:.0f}% of the adapters' own accuracy. `knots_ties` "
        "at λ = 1 kept {knots_ties:.0f}%",
        **at_one,
    )
    five = [kept("new-methods", ADAPTERS, 5, TUNED), kept("actmat", ADAPTERS, 5, TUNED)]
    newer = [each[method] for each in five for method in NEWER if method in each]
    assert_says(MANY, f"keep {span(newer)}% of five adapters")
    assert max(*at_one.values(), *tuned.values(), *kept("merges", ADAPTERS, 10).values()) < 50
    # Tables of methods that were all measured on the same subsets.
    same = [five[1], tuned, *(kept("merges", ADAPTERS, inputs, TUNED) for inputs in (5, 10))]
    apart = max(max(each.values()) - min(each.values()) for each in same)
    assert_says(CHOOSING, f"the means of all methods are within {apart:.0f} points;")
    assert_says("inspect", f"all methods are within {apart:.0f} points")
    assert_says(QUALITY, f"all methods are within {apart:.0f} points")


def test_two_inputs():
    two = chain(*(kept("merges", kind, 2, TUNED).values() for kind in KINDS))
    figures = f"{span(two)}%"
    assert_says(MANY, f"With tuned λ, two inputs keep {figures}")
    assert_says(QUALITY, f"with tuned λ {figures}")


def test_eight_older_methods():
    lora, full = (kept("merges", kind, 10) for kind in KINDS)
    tuned_lora, tuned_full = (kept("merges", kind, 10, TUNED) for kind in KINDS)
    at_one, tuned = (above_ties("merges", ADAPTERS, setting) for setting in SETTINGS)
    both = {method: span([lora[method], full[method]]) for method in lora}
    assert_says(
        QUALITY,
        "`drm` is {drm.mean:.1f} points above `ties`, and better on {drm.better} of {drm.count} "
        "subsets; for five inputs {five[drm]:.0f} against {five[ties]:.0f}%",
        five=kept("merges", FULL, 5, TUNED),
        **above_ties("merges", FULL, TUNED),
    )
    assert_says(
        QUALITY,
        "{knots_ties.mean:.1f} points above `ties`, and better on {knots_ties.better} of "
        "{knots_ties.count} subsets; for ten inputs {ten[knots_ties]:.0f} against {ten[ties]:.0f}%",
        ten=lora,
        **at_one,
    )
    assert_says(
        QUALITY,
        "`drm` and `knots_ties` are {drm.mean:.1f} and {knots_ties.mean:.1f} points above `ties`",
        **tuned,
    )
    spectral = [each for ten in (lora, full) for each in some(ten, "drm", "knots_ties", "star")]
    assert_says(
        QUALITY,
        f"`drm`, `knots_ties` and `star` keep {span(spectral)}%, `ties` {both['ties']}%, and "
        f"`dare_ties` {both['dare_ties']}%",
        f"by {lora['star'] - lora['ties']:.0f} points on adapters and by "
        f"{full['star'] - full['ties']:.0f} on full fine-tunes",
    )
    assert_says(
        MANY,
        f"keep {both['dare_ties']}%, less than the base",
        f"they keep {tuned_lora['dare_ties']:.0f}% of adapters and "
        f"{tuned_full['dare_ties']:.0f}% of full fine-tunes",
    )
    means = [[0, *(each.mean for each in found.values())] for found in (at_one, tuned)]
    for page in (QUALITY, CHOOSING):
        assert_says(
            page,
            "are {:.0f} points apart at published settings, and {:.0f} points with tuned λ".format(
                *(max(each) - min(each) for each in means)
            ),
        )


def test_newer_methods():
    assert_says(
        QUALITY,
        "{actmat.mean:.1f} ± {actmat.error:.1f} points for `actmat`, {tsvm.mean:.1f} ± "
        "{tsvm.error:.1f} for `tsvm`, {iso.mean:.1f} ± {iso.error:.1f} for `iso` and "
        "{drm.mean:.1f} ± {drm.error:.1f} for `drm`",
        **above_ties("actmat", FULL, inputs=[10]),
    )
    (actmat,), (tsvm,) = (merged("actmat", FULL, method, 10) for method in ("actmat", "tsvm"))
    numbers, letters = (
        " and ".join(percent(each.normalized[AT_ONE][task]) for each in (tsvm, actmat))
        for task in ("numbers", "letters")
    )
    (adapters,) = merged("new-methods", ADAPTERS, "tsvm", 10)
    lower, at_one, higher = (percent(actmat.validation[scale]) for scale in (0.7, 1, 1.7))
    six, six_tuned = (kept("actmat", ADAPTERS, 6, setting) for setting in SETTINGS)
    less = [six["knots_ties"] - each for each in some(six, *NEWER)]
    assert_says(
        QUALITY,
        f"keep {numbers}% of numbers and {letters}% of letters",
        f"`tsvm` at λ = 1 keeps {percent(adapters.normalized[AT_ONE]['letters'])}% of letters",
        f"accuracy is {lower}% at λ = 0.7, {at_one} at 1 and {higher} at 1.7",
        f"({percent(tsvm.validation[1])} and {percent(tsvm.validation[1.7])}%)",
        f"`actmat` has {six_tuned['actmat'] - six_tuned['knots_ties']:.0f} points more than",
        f"at λ = 1 they keep {span(less)} points less of six adapters than `knots_ties`",
    )


def test_earlier_run():
    two, five = (merged("new-methods", FULL, "iso", inputs)[1] for inputs in (2, 5))
    ties, tsvm = (merged("new-methods", FULL, method, 5)[0] for method in ("ties", "tsvm"))
    of_five = above_ties("new-methods", FULL, inputs=[5])
    of_adapters, tuned = (above_ties("new-methods", ADAPTERS, each)["iso"] for each in SETTINGS)
    earlier, later = (
        {each.merge: each for each in merges(name)} for name in ("merges", "new-methods")
    )
    changes = [
        100 * abs(later[merge].mean(setting) - earlier[merge].mean(setting))
        for merge in earlier.keys() & later.keys()
        for setting in SETTINGS
    ]
    assert sum(change < 1 for change in changes) > len(changes) / 2

    def kept_of(task: str) -> list[str]:
        return [percent(each.normalized[AT_ONE][task]) for each in (ties, tsvm)]

    assert_says(
        QUALITY,
        f"and a few by up to {max(changes):.1f}",
        "`iso` keeps {} and {}".format(
            *(" / ".join(f"{100 * each.mean(at):.1f}" for at in SETTINGS) for each in (two, five))
        ),
        "({}% with `ties`, {}% with `tsvm`)".format(*kept_of("numbers")),
        "sums ({} and {}%)".format(*kept_of("sums")),
        "{tsvm.mean:.0f} ± {tsvm.error:.0f} points for `tsvm` and {iso.mean:.0f} ± {iso.error:.0f} "
        "for `iso`",
        f"{of_adapters.mean:.1f} ± {of_adapters.error:.1f} points more than `ties` at λ = 1, and "
        f"{tuned.mean:.1f} ± {tuned.error:.1f} with tuned λ",
        **of_five,
    )


def test_another_model():
    iso = above_ties("gemma-3-270m", ADAPTERS, inputs=[3])["iso"]
    assert_says(QUALITY, f"`iso` again has more than `ties`, by {iso.mean:.0f} points at λ = 1")


def test_different_starts():
    def gains(setting: str, *methods: str) -> list[float]:
        own, shared = (kept(f"{whose}-starts", ADAPTERS, 5, setting) for whose in ("own", "shared"))
        return [own[method] - shared[method] for method in methods]

    spectral = ("drm", "knots_ties", "star")
    assert span(gains(AT_ONE, *spectral)) == "1"
    assert_says(
        QUALITY,
        f"1 point more at λ = 1, and {span(-gain for gain in gains(TUNED, *spectral))} points less",
        f"gain {span(gains(AT_ONE, 'ties', 'dare_ties'))} points at λ = 1",
    )


def differences(one: str, other: str) -> dict[tuple[str, int, str], float]:
    """Points that a variant keeps more than another, by kind, number of inputs and setting."""
    return {
        (kind, inputs, setting): found[one] - found[other]
        for kind, inputs, setting in product(KINDS, (5, 10), SETTINGS)
        for found in [kept("analyses", kind, inputs, setting)]
    }


def test_renormalization():
    without = differences("drm_without_renormalization", "drm")
    ten = kept("analyses", ADAPTERS, 10)
    tuned, tuned_without = (
        [each.scales[TUNED] for each in merges("analyses") if each.method == method]
        for method in ("drm", "drm_without_renormalization")
    )
    at_one = span(without[FULL, inputs, AT_ONE] for inputs in (5, 10))
    assert_says(
        QUALITY,
        f"full fine-tunes keep {at_one} points more at λ = 1",
        f"it helps ten adapters ({ten['drm']:.0f} against {ten['drm_without_renormalization']:.0f}%"
        f"), and costs full fine-tunes {at_one} points",
        f"is {span(-without[kind, 5, TUNED] for kind in KINDS)} points worse on five tasks and "
        f"{span(without[kind, 10, TUNED] for kind in KINDS)} points better on ten",
        f"tuning chose {min(tuned_without):.1f} to {max(tuned_without):.1f} without "
        f"renormalization, and {min(tuned):.1f} to {max(tuned):.1f} with it",
    )


def test_direction():
    drm, knots = (
        differences(method, f"{method}_vertical").values() for method in ("drm", "knots_ties")
    )
    auto = [
        gap
        for method in ("drm", "knots_ties")
        for gap in differences(method, f"{method}_auto").values()
    ]
    assert_says(
        QUALITY,
        f"better than `vertical` in {sum(gap > 0 for gap in (*drm, *knots))} of 16 cells, for "
        f"`drm` by up to {max(drm):.0f} points",
        f"{fmean(auto):.1f} points below `horizontal` on average, {max(auto):.0f} points at worst",
    )
    lower = f"{fmean(auto):.1f} points lower on average, {max(auto):.0f} at worst"
    assert_says("docs/full-fine-tunes.md", lower)


def test_weights_or_coordinates():
    sparse_knots = "knots_ties_density_0.2"
    dense = differences("knots_ties", "ties_density_1").values()
    sparse = differences(sparse_knots, "ties").values()
    trimming = [gap for gap in differences(sparse_knots, "knots_ties").values() if gap > 0.1]
    assert min(*dense, *sparse) > 0
    assert len(trimming) == 6
    assert_says(
        QUALITY,
        f"in all 16 cells, by {span(dense)} points at density 1 and by {span(sparse)} points at "
        "0.2",
        f"better than 1.0 in six of eight cells, by {span(trimming)} points",
    )


def test_eta_of_star():
    def of_all(kind: str, inputs: int, *settings: str) -> str:
        etas = ("star", *(f"star_eta_{eta}" for eta in (20, 60, 80, 100)))
        found = [kept("analyses", kind, inputs, setting) for setting in settings]
        return span(each[eta] for each in found for eta in etas)

    assert_says(
        QUALITY,
        f"adapters keep {of_all(ADAPTERS, 5, *SETTINGS)}% of five tasks and "
        f"{of_all(ADAPTERS, 10, *SETTINGS)}% of ten",
        f"keep {of_all(FULL, 5, AT_ONE)}% and {of_all(FULL, 10, AT_ONE)}% at λ = 1",
        f"With tuned λ they keep {of_all(FULL, 5, TUNED)}% and {of_all(FULL, 10, TUNED)}%",
    )


def test_single_weights():
    lora, full = ([m for m in analyses().matrices if m.kind == kind] for kind in KINDS)
    up = [matrix.joint_effective_rank for matrix in full if "up_proj" in matrix.weight]
    square = [matrix.joint_effective_rank for matrix in full if "up_proj" not in matrix.weight]
    signs = {
        space: span(100 * matrix.agreement[space].mean for matrix in (*lora, *full))
        for space in lora[0].agreement
    }
    with_it, without = (
        [span(100 * getattr(matrix, way).spread for matrix in own) for own in (lora, full)]
        for way in ("renormalized", "unrenormalized")
    )
    assert_says(
        QUALITY,
        "± {} points for adapters and ± {} for full fine-tunes".format(*with_it),
        "without renormalization it is ± {} and ± {} points".format(*without),
        f"adapters lose {percent(fmean(each.unrenormalized.whole for each in lora))}% of",
        f"{signs['weights']}% have the majority's sign in the weights and "
        f"{signs['joint space']}% in the joint space",
        f"it is {signs['weights, pruned']}% in the weights and {signs['joint space, pruned']}% in",
        f"an effective rank of {span(fmean(each.effective_ranks) for each in lora)}",
        f"have {span(each.joint_effective_rank for each in lora)} of at most 160",
        f"Full fine-tunes have {span(fmean(each.effective_ranks) for each in full)}, and ten of "
        f"them side by side have {span(square)} of at most 576, and in `up_proj` {span(up)} of",
    )


def test_tuning():
    printed_tables = printed("tune", "tuning")
    signals = [
        [float(value) for value in row[1:7]]  # with 20 and with 50 examples, by three signals
        for title, rows in printed_tables.items()
        if "by each signal" in title
        for row in rows
    ]
    by_log = [abs(row[at + 1] - row[at]) for row in signals for at in (0, 3)]
    with_20, with_50 = ([row[at + 2] - row[at] for row in signals] for at in (0, 3))
    ties = printed_tables["5 full fine-tunes: accuracy on test examples, normalized, in percent"][0]
    losses = [float(ties[1]) - float(cell.split()[0]) for cell in ties[3:6]]
    assert_says(
        TUNE,
        f"changes accuracy by {max(by_log):.1f} points at most with 20 and 50 examples",
        f"{-min(with_20):.1f} points lower to {max(with_20):.1f} higher with 20 examples, and "
        f"{-min(with_50):.1f} lower to {max(with_50):.1f} higher with 50",
        f"nothing was to be gained, tuning lost {min(losses):.1f} to {max(losses):.1f} points",
    )


def test_limits_on_the_rank():
    results = read_lines(path("demo-adapter-ranks"), Results)

    def at_8(method: str, inputs_compressed: bool) -> str:
        return f"{100 * results.normalized(results.find(method, 8, inputs_compressed)):.1f}"

    both = {
        method: (at_8(method, True), at_8(method, False))
        for method in ("iso", "tsvm", "knots_ties", "drm")
    }
    compressed, truncated = both.pop("iso")
    assert_says(
        LORA,
        f"`iso` keeps {compressed}% with compressed inputs and {truncated}% with the truncated SVD",
        ", ".join("`{}` {} and {}%".format(method, *shares) for method, shares in both.items()),
        f"`star` {at_8('star', True)}% with both",
    )
    assert at_8("star", True) == at_8("star", False)
    whole, cut = (results.find("knots_ties", rank, False) for rank in (None, 8))
    lost = f"{100 * cut.update_lost[0]:.1f}%"
    before, after = (round(100 * each.exact["numbers"]) for each in (whole, cut))
    assert_says(
        LORA,
        f"a mean loss of {lost} was {before - after} of {before} points of one task",
        f"a loss of {lost} of the squared norm is a third of the answers in Spanish numbers",
    )
    assert (before - after) / before == pytest.approx(1 / 3, abs=0.02)


def test_spanish_numbers_at_a_limited_rank():
    results = read_lines(path("adapter-ranks"), Results)
    inputs, update, whole = (
        percent(results.find("iso", rank, compressed).exact["numbers"] / results.alone["numbers"])
        for rank, compressed in ((8, True), (8, False), (None, False))
    )
    assert_says(
        LORA,
        f"with `iso` at rank 8, they keep {inputs}% instead of {update}%. All 48 directions keep "
        f"{whole}%.",
    )


def test_compressed_inputs_on_validation_examples():
    results = read_lines(path("validation-adapter-ranks"), Results)

    def gain(method: str, rank: int) -> str:
        inputs, update = (results.normalized(results.find(method, rank, c)) for c in (True, False))
        return f"{100 * (inputs - update):.1f}"

    iso, tsvm, knots = (
        "{}, {} and {}".format(*(gain(method, rank) for rank in (4, 8, 16)))
        for method in ("iso", "tsvm", "knots_ties")
    )
    assert_says(
        LORA,
        f"`iso` was better with compressed inputs by {iso} points at ranks 4, 8 and 16, `tsvm` by "
        f"{tsvm}, and `knots_ties` by {knots}",
    )
