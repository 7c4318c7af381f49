"""The command ``mergekit-spectral``."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

import click

from mergekit_spectral import __version__

DEMO_MODULES = ("gguf", "inflect", "num2words", "vaderSentiment", "wonderwords")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mergekit-spectral")
def main() -> None:
    """Merge methods in spectral space for mergekit: DRM, KnOTS and STAR."""


@main.command()
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the models and merges in this folder, which must be empty or new (about 3 GB). "
    "Without it they go in a temporary folder and are deleted.",
)
def demo(work_dir: Path | None) -> None:
    """Merge three LoRA adapters into SmolLM2-135M-Instruct, four ways, and compare them."""
    if any(find_spec(module) is None for module in DEMO_MODULES):
        raise click.ClickException(
            "the demo needs its extra: pip install 'mergekit-spectral[demo]'"
        )
    if work_dir is not None and work_dir.is_dir() and any(work_dir.iterdir()):
        raise click.ClickException(f"{work_dir} is not empty; name an empty or a new folder")

    # Late, because they import torch and transformers, which takes seconds.
    from rich.console import Console

    from mergekit_spectral.demo.run import run_demo

    if work_dir is not None:
        work_dir.mkdir(parents=True, exist_ok=True)
        run_demo(work_dir.resolve(), Console())
        return
    with tempfile.TemporaryDirectory(prefix="mergekit-spectral-demo-") as folder:
        run_demo(Path(folder), Console())


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    help="Give no weight a larger rank than this: the best approximation. Without it a weight has "
    "the rank of its merged update, at most the sum of the inputs' ranks.",
)
@click.option(
    "--energy",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Give each weight the smallest rank that keeps this share of its squared norm.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="In which the factors are stored.",
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that the base model brings.")
@click.option("--random-seed", type=int, help="Seed for methods that draw at random.")
def adapter(
    recipe: Path,
    out: Path,
    rank: int | None,
    energy: float,
    dtype: str,
    trust_remote_code: bool,
    random_seed: int | None,
) -> None:
    """Merge the LoRA inputs of RECIPE into one LoRA adapter, in the folder OUT.

    RECIPE is an ordinary one for drm, star or a knots method in which every input is written
    base+adapter. Of the base only its configuration is needed, and no GPU.

    Example: mergekit-spectral adapter recipes/llama/lora/knots_ties.yml out/ --rank 32
    """
    import torch
    from mergekit.options import MergeOptions
    from rich.console import Console

    from mergekit_spectral.adapter_command import merge_into_adapter

    if random_seed is not None:
        torch.manual_seed(random_seed)
    merge_into_adapter(
        recipe,
        out,
        rank=rank,
        energy=energy,
        dtype=getattr(torch, dtype),
        options=MergeOptions(trust_remote_code=trust_remote_code),
        console=Console(),
    )
