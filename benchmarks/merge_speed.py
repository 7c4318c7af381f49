"""Time and peak memory of merging one weight: our methods, mergekit's, and the plain definitions.

python -m benchmarks.merge_speed run --set small --inputs 4
python -m benchmarks.merge_speed growth --plot plots
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.options import (
    DEVICES,
    DTYPES,
    POSITIVE,
    SETS,
    Kept,
    Shape,
    direction_option,
    json_option,
    methods_option,
    plot_option,
    require_matplotlib,
    runs_option,
)
from mergekit_spectral.command_line.option_types import Listed

if TYPE_CHECKING:
    from benchmarks.cases import Result


@click.group(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure merges of one weight."""


@main.command()
@methods_option("ties,drm,knots_ties,star,iso,tsvm,actmat")
@click.option("--set", "set_name", type=click.Choice(SETS), help="Shapes by name. Default: small.")
@click.option("--shapes", type=Listed(Shape()), help="Shapes [out]x[in], besides --set or instead.")
@click.option(
    "--inputs", type=Listed(POSITIVE), default="4", show_default=True, help="How many to merge, T."
)
@click.option(
    "--kind",
    "kinds",
    type=Listed(click.Choice(["dense", "lora"])),
    default="dense",
    show_default=True,
    help="Full fine-tunes or LoRA.",
)
@click.option("--rank", type=POSITIVE, default=16, show_default=True, help="Of LoRA inputs.")
@click.option(
    "--dtype",
    "dtypes",
    type=Listed(DTYPES),
    default="float32",
    show_default=True,
    help="Of all weights and factors.",
)
@click.option(
    "--device", "devices", type=Listed(DEVICES), default="cpu", show_default=True, help="Where."
)
@direction_option
@click.option(
    "--kept",
    "kept_ranks",
    type=Listed(Kept()),
    default="all",
    show_default=True,
    help="Joint directions that are kept, for the methods that have the parameter `rank`.",
)
@runs_option
@click.option(
    "--plain/--no-plain",
    default=True,
    show_default=True,
    help="Also time the float32 definition of the methods that have one (slow).",
)
@click.option("--plain-runs", type=POSITIVE, help="Timed runs of those. Default: as --runs.")
@click.option("--error", is_flag=True, help="Also take errors (slower still: float64 SVDs).")
@json_option
@plot_option
def run(
    methods: list[str],
    set_name: str | None,
    shapes: list[tuple[int, int]] | None,
    inputs: list[int],
    kinds: list[str],
    rank: int,
    dtypes: list[str],
    devices: list[str],
    direction: str,
    kept_ranks: list[float | None],
    runs: int,
    plain: bool,
    plain_runs: int | None,
    error: bool,
    json_path: Path | None,
    plots: Path | None,
) -> None:
    """Measure methods x shapes x T x kind x dtype x device, also with `rank`.

    Every case is a process of its own. The methods of one setting follow one another, so that their
    ratios are of one moment. All weights are 1, density is 0.5 where a method has one, all else is
    at its default.

    Peak memory is what a merge adds to its inputs, its output included. LoRA inputs reach our
    methods as factors, the others as merged weights, made before the clock starts.

    The error is that of the merged delta, relative (Frobenius), to the definition in float64 on the
    same values: a LoRA update counts as the product of its factors. It is taken in a float32 merge
    of those values, of whose rounding a few 1e-6 come.
    """
    require_matplotlib(plots)
    from benchmarks import weights
    from benchmarks.cases import Case
    from benchmarks.plain import DEFINITIONS
    from benchmarks.runner import has_parameter, measure_all
    from benchmarks.tables import print_results

    chosen = list(shapes or [])
    if set_name or not chosen:
        chosen = weights.SETS[set_name or "small"] + chosen
    ranked = [
        (method, kept)
        for method in methods
        for kept in (kept_ranks if has_parameter(method, "rank") else [None])
    ]
    labels = [(method, kept, False) for method, kept in ranked]
    if plain:
        labels += [(method, kept, True) for method, kept in ranked if method in DEFINITIONS]
    settings = product(dict.fromkeys(chosen), inputs, dtypes, kinds, devices)
    groups = [
        [
            Case(
                method=method,
                shape=shape,
                inputs=T,
                dtype=dtype,
                kind=kind,
                rank=rank if kind == "lora" else 0,
                device=device,
                direction=direction,
                kept=kept,
                plain=plainly,
            )
            for method, kept, plainly in labels
        ]
        for shape, T, dtype, kind, device in settings
    ]
    results: list[Result] = []

    def take(result: Result) -> None:
        results.append(result)
        # Now, because a long run may not reach its end.
        if json_path:
            _write(json_path, cases=[each.as_dict() for each in results])

    measure_all(groups, runs, plain_runs or runs, error, take)
    print_results("Merging one weight", results, error)
    if plots:
        from benchmarks.plots import ratio_plots

        for path in ratio_plots(results, plots):
            click.echo(f"wrote {path}", err=True)


@main.command()
@methods_option("ties,drm,knots_ties,star,iso,tsvm,actmat")
@click.option("--max-inputs", type=POSITIVE, default=8, show_default=True, help="T goes from 1.")
@click.option(
    "--max-width", type=POSITIVE, default=4096, show_default=True, help="Width goes from 256."
)
@click.option("--max-rank", type=POSITIVE, default=256, show_default=True, help="Rank goes from 4.")
@click.option("--dtype", type=DTYPES, default="float32", show_default=True, help="Of all weights.")
@click.option("--device", type=DEVICES, default="cpu", show_default=True, help="Where.")
@direction_option
@runs_option
@json_option
@plot_option
def growth(
    methods: list[str],
    max_inputs: int,
    max_width: int,
    max_rank: int,
    dtype: str,
    device: str,
    direction: str,
    runs: int,
    json_path: Path | None,
    plots: Path | None,
) -> None:
    """Measure how cost grows with the number of inputs, with width and with rank.

    Inputs at 1024 x 1024; width at T = 4; rank, of LoRA inputs, at the largest width and T = 4. The
    exponents are those of the best fit of a power over the whole range.
    """
    require_matplotlib(plots)
    from benchmarks.growth import all_series, exponents
    from benchmarks.runner import measure_all
    from benchmarks.tables import print_results

    figures: dict[str, Any] = {}
    for series in all_series(methods, dtype, device, direction, max_inputs, max_width, max_rank):
        results: list[Result] = []
        measure_all([series.cases], runs, runs, False, results.append)
        figures[series.name] = {
            "exponents": exponents(series, results),
            "cases": [result.as_dict() for result in results],
        }
        if json_path:
            _write(json_path, series=figures)
        print_results(series.title.replace("\n", ": "), results)
        if plots:
            from benchmarks.plots import growth_plot

            growth_plot(series, results, plots / f"growth-{series.name}.png")


def _write(path: Path, **figures: Any) -> None:
    from benchmarks.machine import write_json

    write_json(path, **figures)


if __name__ == "__main__":
    main()
