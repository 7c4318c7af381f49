"""mergekit-multi and mergekit-pytorch know the methods too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import Family
from support.command import mergekit_multi, mergekit_pytorch
from support.expected import assert_merged, assert_weights_merged
from support.recipe_builders import METHODS, recipe


@pytest.mark.parametrize(("first", "second"), [("drm", "star"), ("star", "knots"), ("ties", "drm")])
def test_multi_merges_a_merge(first: str, second: str, llama: Family, out: Path):
    one, two, three = llama.tuned
    step = {"name": "step", **recipe(first, Family(llama.base, (one, two)), weight=1.0)}
    last = recipe(second, Family(llama.base, (Path("step"), three)))
    mergekit_multi([step, last], out)
    if first != "ties":
        assert_merged(out.parent / "steps" / "step", Family(llama.base, (one, two)), first)
    assert_merged(out, Family(llama.base, (out.parent / "steps" / "step", three)), second)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Files of tensors of every number of axes, as no one architecture has them."""
    folder = tmp_path_factory.mktemp("files")
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "scalar": (),
        "vector": (24,),
        "wide": (16, 24),
        "tall": (24, 16),
        "experts": (3, 16, 24),
        "convolution": (16, 4, 3, 3),
    }
    paths = [folder / f"{name}.safetensors" for name in ("base", "one", "two", "three")]
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for index, path in enumerate(paths):
        size = 0.1 if index else 0
        moved = {
            name: weight + size * torch.randn(weight.shape, generator=generator)
            for name, weight in base.items()
        }
        save_file({**moved, "positions": torch.arange(8)}, path)
    return Family(paths[0], tuple(paths[1:]))


@pytest.mark.parametrize("method", METHODS)
def test_pytorch_merges_files_of_tensors(method: str, files: Family, out: Path):
    mergekit_pytorch(recipe(method, files), out)
    merged = load_file(out / "model.safetensors")
    base, *tuned = (load_file(path) for path in (files.base, *files.tuned))
    assert torch.equal(merged.pop("positions"), base.pop("positions"))
    assert_weights_merged(merged, base, tuned, method)
