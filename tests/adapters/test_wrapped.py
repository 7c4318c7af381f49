"""LoRA on stacked experts, with the layout of the factors of each version of peft."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import checkpoints
from support.checkpoints import write_adapter
from support.weights import Weights
from torch import Tensor
from transformers import PreTrainedModel

from mergekit_spectral.adapters.adapter_files import find_adapter
from mergekit_spectral.adapters.fitting import fit_to_base
from mergekit_spectral.adapters.lora import LoraAdapter
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.structure import ModelStructure

EXPERTS, RANK = 4, 3
MODELS = {
    False: partial(checkpoints.qwen3_moe, moe_intermediate_size=16),
    True: partial(checkpoints.gpt_oss, intermediate_size=16),
}
"""Models by the `is_transposed` of their experts. gate_up_proj is square, down_proj is not."""

LAYOUTS = [
    (None, False, "in, out"),
    (None, True, "in, out"),
    ("0.18.1", False, "in, out"),
    ("0.18.1", True, "in, out"),
    ("0.19.0", False, "in, out"),
    ("0.19.0", True, "out, in"),
    ("0.19.1", False, "out, in"),
    ("0.19.1", True, "in, out"),
    ("0.22.0.dev0@UNKNOWN", False, "out, in"),
    ("0.22.0.dev0@UNKNOWN", True, "in, out"),
]
"""(version of peft, the experts' `is_transposed`, the axes that peft assumes for a stack)."""


@pytest.mark.parametrize(("version", "is_transposed", "layout"), LAYOUTS)
def test_version_decides_the_layout_of_a_square_stack(
    version: str | None, is_transposed: bool, layout: str, tmp_path: Path
):
    model = MODELS[is_transposed]()
    changes = write(tmp_path, model, ["gate_up_proj"], version, layout)
    assert_updates(tmp_path, model, changes)


@pytest.mark.parametrize("is_transposed", MODELS)
@pytest.mark.parametrize("layout", ["in, out", "out, in"])
@pytest.mark.parametrize("version", [None, "0.19.0", "0.21.2", "7", "from source"])
def test_square_stack_has_the_layout_of_stacks_that_are_not_square(
    version: str | None, layout: str, is_transposed: bool, tmp_path: Path
):
    model = MODELS[is_transposed]()
    changes = write(tmp_path, model, ["gate_up_proj", "down_proj"], version, layout)
    assert_updates(tmp_path, model, changes)


@pytest.mark.parametrize(
    ("half", "shape", "message"),
    [
        ("A", (12, 17), r"layers\.0\.mlp\.experts\.down_proj has shape \[4, 32, 17\], but"),
        ("B", (33, 12), r"has shape \[4, 33, 16\], but the weight has shape \[4, 32, 16\]"),
        ("A", (12, 4, 4), r"has shape \[32, 4, 4\], but the weight has shape \[4, 32, 16\]"),
        ("both", 8, r"down_proj the rank 3 .* its factors have 8 rows for 4 experts"),
    ],
)
def test_factors_of_another_size(half: str, shape: tuple[int, ...], message: str, tmp_path: Path):
    model = MODELS[False]()
    write(tmp_path, model, ["down_proj"], "0.21.2", "out, in")
    path = tmp_path / "adapter_model.safetensors"
    factors = {key: factor.clone() for key, factor in load_file(path).items()}
    for key in factors:
        if half == "both":
            factors[key] = factors[key][:8] if "lora_A" in key else factors[key][:, :8].clone()
        elif f"lora_{half}" in key:
            factors[key] = torch.ones(shape)
    save_file(factors, path)
    with pytest.raises(MergeError, match=message):
        read(tmp_path, model)


def write(
    folder: Path, model: PreTrainedModel, parameters: list[str], version: str | None, layout: str
) -> dict[str, Tensor]:
    """Save an adapter with random factors in a layout; return its updates by parameter."""
    targets = [f"experts.{name}" for name in parameters]
    write_adapter(folder, model, 1, [], rank=RANK, lora_alpha=RANK, target_parameters=targets)
    path = folder / "adapter_config.json"
    config = {k: v for k, v in json.loads(path.read_text()).items() if k != "peft_version"}
    path.write_text(json.dumps(config | ({"peft_version": version} if version else {})))
    path = folder / "adapter_model.safetensors"
    factors: dict[str, Tensor] = {}
    changes: dict[str, Tensor] = {}
    for key in load_file(path):
        module, _, part = key.removeprefix("base_model.model.").partition(".lora_")
        if part != "A.weight":
            continue
        # The factors of the last of two parameters have the module's own name.
        own = parameters[0 if module.endswith(".base_layer") else -1]
        name = f"{module.removesuffix('.base_layer')}.{own}"
        rows, columns = model.get_parameter(name).shape[1:]
        out, in_ = (rows, columns) if layout == "out, in" else (columns, rows)
        A, B = torch.randn(RANK * EXPERTS, in_), torch.randn(out, RANK * EXPERTS)
        factors |= {key: A, key.replace("lora_A", "lora_B"): B}
        changes[name] = update_by_peft(B, A, layout)
    save_file(factors, path)
    return changes


def update_by_peft(B: Tensor, A: Tensor, layout: str) -> Tensor:
    """Return the update that all versions of peft compute from two factors, before the scale."""
    axes = "e o i" if layout == "out, in" else "e i o"
    return torch.einsum(
        f"o r e, e r i -> {axes}", B.reshape(len(B), RANK, EXPERTS), A.reshape(EXPERTS, RANK, -1)
    )


def read(adapter: Path, model: PreTrainedModel) -> LoraAdapter:
    weights = Weights({name: tuple(t.shape) for name, t in model.state_dict().items()})
    model.config.architectures = [type(model).__name__]  # set when a model is saved
    structure = ModelStructure.of(model.config)
    return fit_to_base(LoraAdapter(find_adapter(str(adapter))), "base", weights, structure)


def assert_updates(adapter: Path, model: PreTrainedModel, changes: dict[str, Tensor]) -> None:
    found = read(adapter, model)
    assert found.updates.keys() == changes.keys()
    for name, change in changes.items():
        B, A = found.factors(name)
        torch.testing.assert_close(B @ A, change)
