"""Sentences about time and memory, and cells of other pages' tables, are those of recorded results.

The tables themselves are compared in test_documented.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import product

import pytest
from support.documents import prose, table

from benchmarks.documented import METHODS
from benchmarks.recorded import cases_of, medians, of_command, of_weight, read
from mergekit_spectral.checking.report import duration

PERFORMANCE = "docs/performance.md"


def says(page: str, *sentences: str) -> None:
    """Fail with the sentences that a page does not have."""
    text = prose(page)
    assert [sentence for sentence in sentences if sentence not in text] == [], page


def span(values: Iterable[float], digits: int = 1) -> str:
    """The least and the largest, or one of them if they are rounded to the same."""
    ends = [f"{end(values):.{digits}f}" for values in [list(values)] for end in (min, max)]
    return " to ".join(dict.fromkeys(ends))


def to_ties(figures: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Times over that of ties, by method, without ties."""
    return {method: figures[method][0] / figures["ties"][0] for method in METHODS}


@pytest.fixture
def full() -> dict[str, float]:
    return to_ties({**of_command("command_full")})


def test_full_fine_tunes(full: dict[str, float]):
    float32, bfloat16 = (
        span(to_ties({**of_weight("weight_full", dtype)}).values())
        for dtype in ("float32", "bfloat16")
    )
    whole = span(full.values())
    says(
        "README.md",
        f"a square weight takes {float32} times as long as with `ties` in float32, and {bfloat16} "
        "times in bfloat16",
        f"A whole merge takes {whole} times as long",
    )
    says(
        PERFORMANCE,
        f"full fine-tunes in bfloat16 {whole} times its time",
        f"takes {float32} times as long in float32, and {bfloat16} times in bfloat16",
    )
    ties = {dtype: of_weight("weight_full", dtype)["ties"] for dtype in ("float32", "bfloat16")}
    assert ties["float32"][0] / ties["bfloat16"][0] == pytest.approx(2, rel=0.1)
    others = span(full[method] for method in METHODS if method not in ("iso", "actmat"))
    assert f"{full['iso']:.1f}" == "1.0"
    says(
        "docs/choosing.md",
        "take as long as with `ties` with `iso`, "
        f"{full['actmat']:.1f} times as long with `actmat`, and {others} times with the others",
    )
    says(
        "docs/full-fine-tunes.md",
        f"a whole command takes {full['iso']:.1f} and {full['actmat']:.1f} times as long as "
        f"`ties`, and `drm` {full['drm']:.1f} times",
    )


def test_noise_is_the_worst_case_of_actmat(full: dict[str, float]):
    noise = of_command("command_noise")
    says(
        PERFORMANCE,
        f"took {noise['actmat'][0] / noise['ties'][0]:.1f} times as long as `ties`, instead of "
        f"{full['actmat']:.1f}",
    )


def test_memory_is_lower():
    for figures in (
        *(of_weight("weight_full", dtype) for dtype in ("float32", "bfloat16")),
        of_weight("weight_lora", "bfloat16"),
        *(of_command(f"command_{kind}") for kind in ("full", "lora")),
    ):
        assert all(figures[method][1] < figures["ties"][1] for method in METHODS)


def test_adapters():
    found = of_command("command_lora")
    says(PERFORMANCE, f"LoRA adapters take {span(to_ties({**found}).values(), 2)} of its time")
    seconds, peak = ([found[method][at] for method in METHODS] for at in (0, 1))
    ties = found["ties"]
    says(
        "docs/lora.md",
        f"| {ties[0]:.0f} s, {ties[1] / 1e9:.1f} GB | {span(seconds)} s, "
        f"{span(size / 1e9 for size in peak)} GB |",
    )


def test_fewer_directions():
    cases = {(case["method"], case["kept"]): case["seconds"] for case in cases_of("weight_rank")}
    ties = cases["ties", None]
    few, every = (
        span(cases[method, kept] / ties for method in ("drm", "knots_ties"))
        for kept in (0.25, None)
    )
    says(
        "docs/full-fine-tunes.md",
        f"{few} times that of `ties` instead of {every}, for six inputs in bfloat16",
    )


def test_workers():
    ratios = []
    for name in ("workers_drm", "workers_rank"):
        runs = {label: medians(each) for label, each in read(name)["runs"].items()}
        ratios.append(runs["run, 2 workers"]["seconds"] / runs["mergekit-yaml, drm"]["seconds"])
    says("docs/full-fine-tunes.md", f"{span(ratios, 2)} of its time for `drm` on two cores")
    one = medians(read("workers_lora")["runs"]["run, 1 workers"])["seconds"]
    says(PERFORMANCE, f"for the LoRA merge, one worker takes {one:.0f} seconds")


def test_growth():
    grown = read("growth")["series"]["inputs"]["exponents"]
    power = {method: f"T^{found['seconds']:.1f}" for method, found in grown.items()}
    says(
        "docs/many-models.md",
        f"`drm` grows with {power['drm']}, `knots_ties` with {power['knots_ties']}, `star` with "
        f"{power['star']} and `ties` with {power['ties']}",
    )


def test_gpu():
    rows = {row[0]: row[1:] for row in table(PERFORMANCE, "On a GPU").rows}
    seconds = {
        label: [float(cell.split(" (")[0]) for cell in cells if cell]
        for label, cells in rows.items()
    }
    ties = seconds.pop("ties")
    dense = [found[at] / ties[at] for found in seconds.values() for at in (0, 1)]
    lora = [found[2] / ties[2] for found in seconds.values() if len(found) > 2]
    assert max(seconds["tsvm"]) < 0.6
    says("README.md", f"full fine-tunes take {span(dense, 0)} times as long as with `ties`")
    says(
        PERFORMANCE,
        f"adapters take {lora_span(lora)} times as long as with `ties`, and full fine-tunes "
        f"{span(dense, 0)} times",
    )
    square = span((found[0] for found in seconds.values()), 2)
    says("docs/faq.md", f"a 4096×4096 weight of four full fine-tunes takes {square} s")
    says("docs/full-fine-tunes.md", f"on an H100, {square} s for one weight of four inputs")


def lora_span(ratios: list[float]) -> str:
    """The least with a digit after the point, the largest without."""
    return f"{min(ratios):.1f} to {max(ratios):.0f}"


OURS = ("iso", "actmat", "tsvm", "drm")
SIZES = ("7B", "13B", "70B")


def estimated(
    what: str, methods: Iterable[str], sizes: Iterable[str], kind: str, counts: Iterable[int]
) -> list[float]:
    """Estimates of merges of large models, in gigabytes or seconds."""
    scale = 1.0 if what == "core_seconds" else 1e9
    chosen = set(product(methods, sizes, [kind], counts))
    return [
        one[what] / scale
        for one in read("memory")["estimates"]
        if (one["method"], one["size"], one["kind"], one["count"]) in chosen
    ]


def test_memory_of_large_models():
    worker = partial(estimated, "worker_bytes")
    few = span(worker(["iso", "actmat", "drm"], ["7B"], "full", [4]))
    says(
        "docs/faq.md",
        f"takes {span(worker(OURS, ['7B'], 'lora', [4]))} GB for adapters, and for full fine-tunes "
        f"{few} GB with `iso`, `actmat` and `drm` (with `direction: auto`), "
        f"{span(worker(['tsvm'], ['7B'], 'full', [4]))} GB with `tsvm`, and "
        f"{span(worker(['ties'], ['7B'], 'full', [4]))} GB with mergekit's `ties`",
    )
    lora, full = (span(worker(OURS, ["70B"], kind, [4])) for kind in ("lora", "full"))
    says("docs/faq.md", f"a worker takes {lora} GB for adapters, and {full} GB for full")
    says(
        "docs/memory.md",
        f"of a 70B model in {lora} GB, and four full fine-tunes in {full} GB",
    )
    says(
        "docs/many-models.md",
        f"`iso`: {span(worker(['iso'], ['7B'], 'lora', [2, 4, 8]))} GB a worker for two to eight "
        f"adapters; `actmat`: {span(worker(['actmat'], ['7B'], 'full', [2, 4, 8]))} GB for full "
        f"fine-tunes; `ties`: {span(worker(['ties'], ['7B'], 'full', [2, 4, 8]))} GB",
    )


def test_gpus_of_large_models():
    gpu, every = partial(estimated, "gpu_bytes"), (2, 4, 8)
    for kind in ("lora", "full"):
        assert max(gpu(["iso", "actmat", "drm"], SIZES, kind, every)) < 8
        assert max(gpu(["tsvm"], ["7B", "13B"], kind, every)) < 8
        assert max(gpu(["ties"], ["7B", "13B"], kind, [2, 4])) < 8
        assert min(gpu(["ties"], ["7B", "13B"], kind, [8]) + gpu(["ties"], ["70B"], kind, [2])) > 8
        assert 16 < max(gpu(["ties"], ["70B"], kind, [8])) < 24
    says("docs/memory.md", f"needs {span(gpu(['tsvm'], ['70B'], 'full', every))} GB.")


def test_time_of_large_models():
    full, lora = (
        duration(*estimated("core_seconds", ["drm"], ["7B"], kind, [4]))
        for kind in ("full", "lora")
    )
    says(
        "docs/full-fine-tunes.md",
        f"{full.removesuffix(' h')} hours of one core, and for four adapters "
        f"{lora.removesuffix(' min')} minutes",
    )
