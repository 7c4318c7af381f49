"""What is no weight is refused in a sentence, by the merge and by `check`, and never merged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import Result
from mergekit.options import MergeOptions
from safetensors.torch import load_file
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml, try_mergekit_yaml
from support.recipe_builders import METHODS, recipe

from mergekit_spectral.checking.checks import check

WEIGHT = "model.layers.1.mlp.up_proj.weight"
SCALE = "model.layers.1.mlp.up_proj.weight_scale_inv"
CODES = "model.layers.0.mlp.experts.down_proj_blocks"

Tensors = dict[str, torch.Tensor]


def cast(dtype: torch.dtype) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({WEIGHT: tensors[WEIGHT].to(dtype)})


def scale(tensors: Tensors) -> None:
    tensors |= {WEIGHT: tensors[WEIGHT].to(torch.float8_e4m3fn), SCALE: torch.ones(1)}


SAFE: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "int8": (cast(torch.int8), "is of int8, so it seems to be quantized"),
    "uint8": (cast(torch.uint8), "is of uint8, so it seems to be quantized"),
    "int64": (cast(torch.int64), "is of int64 and differs from that of"),
    "bool": (cast(torch.bool), "is of bool and differs from that of"),
    "complex": (cast(torch.complex64), "is of complex64; only real weights"),
    "fp8 with a scale": (scale, f"is quantized to float8_e4m3fn, with its scale in {SCALE}"),
}


@pytest.mark.parametrize("kind", SAFE)
@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize("of_base", [False, True])
def test_numbers_that_are_no_weights(
    kind: str, dtype: str | None, of_base: bool, llama: Family, out: Path
):
    change, message = SAFE[kind]
    changed = _changed(llama.base if of_base else llama.tuned[1], change, out.parent / "changed")
    family = (
        Family(changed, llama.tuned[:2])
        if of_base
        else Family(llama.base, (llama.tuned[0], changed))
    )
    wrong = recipe("drm", family) | ({"dtype": dtype} if dtype else {})
    _assert_refused(try_mergekit_yaml(wrong, out), out, WEIGHT, str(changed), message)
    (told,) = check(_written(out, wrong), out.parent).errors
    assert WEIGHT in told.message
    assert message in told.message


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("sparse", lambda weight: weight.to_sparse()),
        ("quantized", lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_pickles_of_other_forms(
    kind: str, form: Callable[[torch.Tensor], torch.Tensor], llama: Family, out: Path
):
    changed = out.parent / "changed"
    shutil.copytree(llama.tuned[1], changed)
    weights = load_file(changed / "model.safetensors")
    (changed / "model.safetensors").unlink()
    torch.save({**weights, WEIGHT: form(weights[WEIGHT])}, changed / "pytorch_model.bin")
    wrong = recipe("drm", Family(llama.base, (llama.tuned[0], changed)))
    _assert_refused(try_mergekit_yaml(wrong, out), out, str(changed), kind)
    (told,) = check(_written(out, wrong), out.parent).errors
    assert str(changed) in told.message


def test_pickles_with_other_keys_and_parameters(llama: Family, out: Path):
    """Keys that are no names are no tensors; weights that require gradients are weights."""
    changed = out.parent / "changed"
    shutil.copytree(llama.tuned[1], changed)
    weights = load_file(changed / "model.safetensors")
    (changed / "model.safetensors").unlink()
    parameters = {name: torch.nn.Parameter(weight) for name, weight in weights.items()}
    torch.save({**parameters, 7: torch.ones(2)}, changed / "pytorch_model.bin")
    same = recipe("drm", Family(llama.base, (llama.tuned[0], changed)))
    merged = load_file(mergekit_yaml(same, out) / "model.safetensors")
    plain = recipe("drm", Family(llama.base, llama.tuned[:2]))
    expected = load_file(mergekit_yaml(plain, out.parent / "plain") / "model.safetensors")
    assert all(torch.equal(merged[name], expected[name]) for name in expected)
    options = MergeOptions(copy_tokenizer=False)
    assert check(_written(out, same), out.parent, options).findings == ()


@pytest.mark.parametrize("method", METHODS)
def test_fp8_without_scales_is_a_dtype_like_others(method: str, llama: Family, out: Path):
    """A plain cast: converted by `dtype` it is the weight, and without that it is refused."""
    small = [
        _changed(path, _to_fp8, out.parent / f"fp8-{path.name}")
        for path in (llama.base, *llama.tuned)
    ]
    large = [
        _changed(path, lambda t: (_to_fp8(t), _to_float32(t)), out.parent / f"float32-{path.name}")
        for path in (llama.base, *llama.tuned)
    ]
    stored, same = (recipe(method, Family(base, tuple(rest))) for base, *rest in (small, large))
    _assert_refused(try_mergekit_yaml(stored, out), out, "float8_e4m3fn", "set `dtype: bfloat16`")
    converted = {**stored, "dtype": "float32"}
    assert check(_written(out, converted), out.parent).errors == []
    merged = load_file(mergekit_yaml(converted, out) / "model.safetensors")
    expected = load_file(mergekit_yaml(same, out.parent / "same") / "model.safetensors")
    assert all(torch.equal(merged[name], expected[name]) for name in expected)


def test_an_adapter_on_quantized_weights(llama: Family, out: Path):
    changed = _changed(llama.base, cast(torch.int8), out.parent / "changed")
    adapter = checkpoints.write_adapter(out.parent / "one", checkpoints.llama(), 1, ["up_proj"])
    inputs = Family(llama.base, (Path(f"{changed}+{adapter}"),))
    wrong = {**recipe("drm", inputs), "dtype": "float32"}
    _assert_refused(try_mergekit_yaml(wrong, out), out, WEIGHT, str(changed), "int8")


@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_an_adapter_on_whole_numbers(
    kind: torch.dtype, dtype: str | None, llama: Family, out: Path
):
    """Where no model has others, they are copied like buffers, but no adapter is on a buffer."""
    changed = _changed(llama.base, cast(kind), out.parent / "changed")
    adapter = checkpoints.write_adapter(out.parent / "one", checkpoints.llama(), 1, ["up_proj"])
    inputs = Family(changed, (Path(f"{changed}+{adapter}"),))
    wrong = recipe("drm", inputs) | ({"dtype": dtype} if dtype else {})
    told = f"changes tensor {WEIGHT} of {changed}, which is of {str(kind).removeprefix('torch.')}; "
    _assert_refused(try_mergekit_yaml(wrong, out), out, str(adapter), told)
    (error,) = check(_written(out, wrong), out.parent).errors
    assert told in error.message


def test_quantized_experts_are_missed(out: Path, caplog: pytest.LogCaptureFixture):
    """As OpenAI's gpt-oss has them: mergekit looks for other names and leaves them out."""
    base = _quantized_gpt_oss(out.parent)
    adapter = checkpoints.write_adapter(out.parent / "one", checkpoints.gpt_oss(), 1, ["q_proj"])
    wrong = recipe("drm", Family(base, (Path(f"{base}+{adapter}"),)))
    mergekit_yaml(wrong, out)
    told = f"lacks 12 of the 60 tensors of {base}, the first are {CODES}, "
    assert [message for message in caplog.messages if told in message]
    (error,) = check(_written(out, wrong), out.parent).errors
    assert told in error.message


def test_an_adapter_on_quantized_experts(out: Path):
    base = _quantized_gpt_oss(out.parent)
    on_experts = {"target_parameters": ["experts.down_proj"]}
    adapter = checkpoints.write_adapter(
        out.parent / "one", checkpoints.gpt_oss(), 1, [], **on_experts
    )
    wrong = recipe("drm", Family(base, (Path(f"{base}+{adapter}"),)))
    told = f"{CODES.removesuffix('_blocks')}, which mergekit does not find in the files of {base}; "
    told += f"the files contain {CODES} in uint8, so they seem to be quantized"
    _assert_refused(try_mergekit_yaml(wrong, out), out, str(adapter), told)
    (error,) = check(_written(out, wrong), out.parent).errors
    assert told in error.message


def _quantized_gpt_oss(folder: Path) -> Path:
    checkpoints.gpt_oss().save_pretrained(folder / "plain")
    return _changed(folder / "plain", _quantize_experts, folder / "base")


def _quantize_experts(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, in_, out = tensors.pop(name).shape
        tensors |= {
            f"{name}_blocks": torch.zeros(experts, out, in_ // 16, 8, dtype=torch.uint8),
            f"{name}_scales": torch.zeros(experts, out, in_ // 16, dtype=torch.uint8),
        }


def _changed(folder: Path, change: Callable[[Tensors], object], copy: Path) -> Path:
    shutil.copytree(folder, copy)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    checkpoints.write_tensors(copy, tensors)
    return copy


def _to_fp8(tensors: Tensors) -> None:
    tensors |= {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}


def _to_float32(tensors: Tensors) -> None:
    tensors |= {name: tensor.float() for name, tensor in tensors.items()}


def _written(out: Path, recipe: dict[str, object]) -> Path:
    path = out.parent / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def _assert_refused(result: Result, out: Path, *named: str) -> None:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    sentence = result.output[result.output.index("Error: ") :]
    for part in named:
        assert part in sentence
    assert not out.exists() or not list(out.glob("*.safetensors")) + list(out.glob("config.json"))
