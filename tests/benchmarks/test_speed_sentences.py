"""Sentences about time and memory, and cells of other pages' tables, are those of recorded results.

The tables themselves are compared in test_documented.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import product

import pytest
from support.documents import ROOT, says, span, table

from benchmarks.memory import SIZES
from benchmarks.recorded import Cost, cases_of, of_command, of_weight, read, runs_of
from benchmarks.recorded_tables import METHODS, power
from mergekit_spectral.checking.report import duration

PERFORMANCE = "docs/performance.md"
DTYPES = ("float32", "bfloat16")
OURS = METHODS[:4]


def to_ties(costs: Mapping[str, Cost]) -> dict[str, float]:
    """Times over that of ties, by method, without ties."""
    return {method: costs[method].seconds / costs["ties"].seconds for method in METHODS}


@pytest.fixture
def full() -> dict[str, float]:
    return to_ties(of_command("command_full"))


def test_full_fine_tunes(full: dict[str, float]):
    weights = [of_weight("weight_full", dtype) for dtype in DTYPES]
    float32, bfloat16 = (span(to_ties(costs).values(), 1) for costs in weights)
    whole = span(full.values(), 1)
    slow, fast = (costs["ties"].seconds for costs in weights)
    assert slow / fast == pytest.approx(2, rel=0.1)
    says(
        "README.md",
        f"a square weight takes {float32} times as long as with `ties` in float32, and {bfloat16} "
        "times in bfloat16, where `ties` is twice as fast.",
        f"A whole merge takes {whole} times as long",
    )
    says(
        PERFORMANCE,
        f"full fine-tunes in bfloat16 {whole} times its time",
        f"takes {float32} times as long in float32, and {bfloat16} times in bfloat16, where `ties` "
        "is twice as fast",
    )
    others = span((full[method] for method in METHODS if method not in ("iso", "actmat")), 1)
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
        f"took {noise['actmat'].seconds / noise['ties'].seconds:.1f} times as long as `ties`, "
        f"instead of {full['actmat']:.1f}",
    )


def test_actmat_takes_less_where_directions_are_left_out():
    falling, noise = (of_command(f"command_{what}")["actmat"] for what in ("full", "noise"))
    says(
        "docs/memory.md",
        f"`actmat` took {falling.seconds / noise.seconds:.2f} times as long as for noise",
    )


def test_memory_is_lower():
    for costs in (
        *(of_weight("weight_full", dtype) for dtype in DTYPES),
        of_weight("weight_lora", "bfloat16"),
        *(of_command(f"command_{kind}") for kind in ("full", "lora")),
    ):
        assert max(costs[method].peak_bytes for method in METHODS) < costs["ties"].peak_bytes
    says("README.md", "Memory is lower in all of these cases.")
    says(PERFORMANCE, "Peak memory is lower in all cases.")


def test_adapters():
    found = of_command("command_lora")
    says(PERFORMANCE, f"LoRA adapters take {span(to_ties(found).values(), 2)} of its time")
    ties, ours = found["ties"], [found[method] for method in METHODS]
    says(
        "docs/lora.md",
        f"| {ties.seconds:.0f} s, {ties.peak_bytes / 1e9:.1f} GB | "
        f"{span((cost.seconds for cost in ours), 1)} s, "
        f"{span((cost.peak_bytes / 1e9 for cost in ours), 1)} GB |",
    )


def test_fewer_directions():
    cases = {(case["method"], case["kept"]): case["seconds"] for case in cases_of("weight_rank")}
    ties = cases["ties", None]
    few, every = (
        span((cases[method, kept] / ties for method in ("drm", "knots_ties")), 1)
        for kept in (0.25, None)
    )
    says(
        "docs/full-fine-tunes.md",
        f"{few} times that of `ties` instead of {every}, for six inputs in bfloat16",
    )


def test_workers():
    ratios = []
    for name in ("workers_drm", "workers_rank"):
        runs = runs_of(name)
        ratios.append(runs["run, 2 workers"]["seconds"] / runs["mergekit-yaml, drm"]["seconds"])
    says("docs/full-fine-tunes.md", f"{span(ratios, 2)} of its time for `drm` on two cores")
    one = runs_of("workers_lora")["run, 1 workers"]["seconds"]
    says(PERFORMANCE, f"for the LoRA merge, one worker takes {one:.0f} seconds")


def test_growth():
    methods = ("drm", "knots_ties", "star", "ties")
    inputs = read("growth")["series"]["inputs"]
    says(
        "docs/many-models.md",
        "`drm` grows with {}, `knots_ties` with {}, `star` with {} and `ties` with {}".format(
            *(f"T^{power(inputs, method)}" for method in methods)
        ),
    )


def test_gpu():
    rows = table(PERFORMANCE, "On a GPU").rows
    dense, tall, lora = (
        {row[0]: float(row[at].split(" (")[0]) for row in rows if row[at]} for at in (1, 2, 3)
    )
    ties = [each.pop("ties") for each in (dense, tall, lora)]
    full = [own / ties[0] for own in dense.values()] + [own / ties[1] for own in tall.values()]
    longest = max(*dense.values(), *tall.values())
    says(
        "README.md",
        f"full fine-tunes take {span(full)} times as long as with `ties`, which is at most "
        f"{longest:.1f} seconds for each weight",
    )
    least, most = min(lora.values()) / ties[2], max(lora.values()) / ties[2]
    says(
        PERFORMANCE,
        f"adapters take {least:.1f} to {most:.0f} times as long as with `ties`, and full "
        f"fine-tunes {span(full)} times",
    )
    square = span(dense.values(), 2)
    says("docs/faq.md", f"a 4096×4096 weight of four full fine-tunes takes {square} s")
    says("docs/full-fine-tunes.md", f"on an H100, {square} s for one weight of four inputs")


@pytest.mark.parametrize(
    ("kind", "beginning", "takes"), [("lora", "So one more", "takes "), ("full", "One more", "")]
)
def test_tuning(kind: str, beginning: str, takes: str):
    runs, scales = runs_of(f"tuning_{kind}"), read(f"tuning_{kind}")["scales"]
    more = (runs["tune"]["seconds"] - runs["tune, one λ"]["seconds"]) / (scales - 1)
    own = runs["tune"]["own_bytes"] / runs["load and score"]["own_bytes"] - 1
    says(
        "docs/tune.md",
        f"{beginning} λ takes {more:.1f} s",
        f"merging anew {takes}{runs['mergekit-yaml']['seconds']:.0f} s",
        f"{own:.0%} above",
    )


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
    def worker(size: str, kind: str, counts: Iterable[int], *methods: str) -> str:
        return span(estimated("worker_bytes", methods, [size], kind, counts), 1)

    says(
        "docs/faq.md",
        f"takes {worker('7B', 'lora', [4], *OURS)} GB for adapters, and for full fine-tunes "
        f"{worker('7B', 'full', [4], 'iso', 'actmat', 'drm')} GB with `iso`, `actmat` and `drm` "
        f"(with `direction: auto`), {worker('7B', 'full', [4], 'tsvm')} GB with `tsvm`, and "
        f"{worker('7B', 'full', [4], 'ties')} GB with mergekit's `ties`",
    )
    lora, full = (worker("70B", kind, [4], *OURS) for kind in ("lora", "full"))
    says("docs/faq.md", f"a worker takes {lora} GB for adapters, and {full} GB for full")
    says("docs/memory.md", f"of a 70B model in {lora} GB, and four full fine-tunes in {full} GB")
    some = (2, 4, 8)
    says(
        "docs/many-models.md",
        f"`iso`: {worker('7B', 'lora', some, 'iso')} GB a worker for two to eight adapters; "
        f"`actmat`: {worker('7B', 'full', some, 'actmat')} GB for full fine-tunes; `ties`: "
        f"{worker('7B', 'full', some, 'ties')} GB",
    )


def test_gpus_of_large_models():
    gpu, some = partial(estimated, "gpu_bytes"), (2, 4, 8)
    for kind in ("lora", "full"):
        assert max(gpu(["iso", "actmat", "drm"], SIZES, kind, some)) < 8
        assert max(gpu(["tsvm"], ["7B", "13B"], kind, some)) < 8
        assert max(gpu(["ties"], ["7B", "13B"], kind, [2, 4])) < 8
        assert min(gpu(["ties"], ["7B", "13B"], kind, [8]) + gpu(["ties"], ["70B"], kind, [2])) > 8
        assert 16 < max(gpu(["ties"], ["70B"], kind, [8])) < 24
    says(
        "docs/memory.md",
        "So `iso`, `actmat` and `drm` merge on a GPU with 8 GB in all of these cases, and `tsvm` "
        "in all but those of 70B, for which it needs "
        f"{span(gpu(['tsvm'], ['70B'], 'full', some), 1)} GB. `ties` needs more than 8 GB for "
        "eight inputs of 7B and of 13B, and for any number of 70B; eight of 70B need 24 GB.",
    )


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


def test_the_readmes_recipe():
    head = (ROOT / "recipes/mistral/two-models.yml").read_text()
    download, hours, minutes = (
        re.findall(pattern, head)[0]
        for pattern in (r"download (\d+ GB)", r"yaml: about ([\d.]+) h", r"run: about (\d+) min")
    )
    says(
        "README.md",
        f"Two models of 7B are a download of {download}",
        f"at most {hours} hours on 8 cores, or {minutes} minutes with",
    )


def test_disk_of_large_models():
    sizes = [estimated("written_bytes", ["drm"], [size], "full", [4])[0] for size in SIZES]
    says("docs/memory.md", "The merged models take {:.0f}, {:.0f} and {:.0f} GB".format(*sizes))
    says("docs/70b.md", f"full fine-tune and the result take {sizes[-1]:.0f} GB each")
