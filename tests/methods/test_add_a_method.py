"""The method of docs/add-a-method.md, in a package that mergekit finds by its entry point."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from reference import relative_error
from safetensors.torch import load_file, save_file
from support.interpreters import run
from support.matrices import gaussian
from support.merging import settings_of
from torch import Tensor

from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.methods.catalog import ENTRY_POINTS
from mergekit_spectral.spectral import DenseDelta, FactoredDelta

PAGE = (Path(__file__).parents[2] / "docs/add-a-method.md").read_text()
CODE, DEFINITION = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(PROJECT,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def method() -> SpectralMethod:
    names: dict[str, Any] = {"__name__": "joint_mean"}
    exec(CODE, names)
    return names["JointMean"]()


def definition(deltas: Sequence[Tensor], **values: Any) -> Tensor:
    names = vars(reference).copy()
    exec(DEFINITION, names)
    return names["joint_mean"](deltas, **values)


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
@pytest.mark.parametrize("max_rank", [1, 5, 100])
def test_dense_inputs_agree_with_the_definition(direction: str, max_rank: int):
    deltas = gaussian((12, 20), 3)
    weights = [1.0, 0.5, 2.0]
    expected = definition(deltas, weights=weights, direction=direction, max_rank=max_rank)
    own = method()
    settings = settings_of(own, 3, direction=direction, max_rank=max_rank) | {"weight": weights}
    actual = own.merge_matrices([DenseDelta(delta) for delta in deltas], settings).to_dense()
    assert relative_error(actual, expected) < 1e-12


def test_factored_inputs_agree_with_the_definition():
    factors = list(zip(gaussian((12, 2), 3), gaussian((2, 20), 3, seed=1), strict=True))
    expected = definition([B @ A for B, A in factors], max_rank=4)
    own = method()
    deltas = [FactoredDelta(B, A) for B, A in factors]
    actual = own.merge_matrices(deltas, settings_of(own, 3, max_rank=4)).to_dense()
    assert relative_error(actual, expected) < 1e-12


def install(folder: Path, name: str, code: str, entries: dict[str, str]) -> None:
    """Write a module and the metadata that an installer writes, with entry points."""
    (folder / f"{name}.py").write_text(code)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{ENTRY_POINTS}]", *(f"{key} = {value}" for key, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


MERGE = """
import os, sys
os.chdir(sys.argv[1])
sys.path.insert(0, sys.argv[1])
from mergekit.merge_methods import merge_tensors, registered_methods
from safetensors.torch import load_file, save_file
tensors = load_file("tensors.safetensors")
inputs = [tensors[name] for name in ("base", "first", "second")]
merged = merge_tensors(inputs, "joint_mean", base_index=0, parameters={"max_rank": 3})
save_file({"merged": merged}, "merged.safetensors")
print(*(method.spec.name for method in registered_methods()))
"""


def test_method_in_another_package(tmp_path: Path):
    group, name, target = re.findall(r'entry-points."(.*)"\]\n(\w+) = "(.*)"', PROJECT)[0]
    assert group == ENTRY_POINTS
    install(tmp_path, "joint_mean", CODE, {name: target})
    install(tmp_path, "broken", "raise ImportError('it lacks a part')", {"other": "broken:Other"})
    base, *deltas = gaussian((12, 20), 3)
    inputs = {"base": base, "first": base + deltas[0], "second": base + deltas[1]}
    save_file(inputs, tmp_path / "tensors.safetensors")
    done = run(MERGE, str(tmp_path))
    assert {"joint_mean", "drm", "knots_ties"} <= set(done.stdout.decode().split())
    assert "The merge method other of broken cannot be loaded" in done.stderr.decode()
    assert "ImportError: it lacks a part." in done.stderr.decode()
    merged = load_file(tmp_path / "merged.safetensors")["merged"]
    expected = base + definition([inputs[name] - base for name in ("first", "second")], max_rank=3)
    assert torch.dist(merged, expected) < 1e-12 * expected.norm()
