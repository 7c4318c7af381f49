"""What is wrong is refused in one sentence that names it, and nothing is left that looks merged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml, try_mergekit_yaml
from support.recipe_builders import METHODS, recipe

from mergekit_spectral.command_line.main import main

MERGED = {"config.json", "model.safetensors", "model.safetensors.index.json"}
WEIGHT = "model.layers.1.mlp.up_proj.weight"

OUT_OF_RANGE = [
    ("drm", "density", 0),
    ("drm", "density", 1.5),
    ("drm", "density", -0.1),
    ("drm", "density", "dense"),
    ("drm", "density", [0.5, 2]),
    ("drm", "density", [{"filter": "mlp", "value": 2}, {"value": 0.5}]),
    ("drm", "rank_tolerance", 1),
    ("drm", "rank_tolerance", -0.01),
    ("drm", "direction", "sideways"),
    ("drm", "embeddings", "dense"),
    ("drm", "weight", "heavy"),
    ("drm", "weight", math.inf),
    ("drm", "lambda", math.nan),
    ("drm", "weight", 1e300),
    ("drm", "lambda", 1e39),
    ("drm", "normalize", "sometimes"),
    ("knots", "rank_tolerance", 1),
    ("knots_ties", "rank_tolerance", -1),
    ("knots_ties", "direction", "up"),
    ("knots_ties", "embeddings", "none"),
    ("knots_ties", "density", "dense"),
    ("knots_ties", "weight", "heavy"),
    ("knots_ties", "lambda", "half"),
    ("knots_ties", "normalize", "sometimes"),
    ("knots_ties", "int8_mask", "sometimes"),
    ("knots_dare_ties", "rescale", "sometimes"),
    ("knots_della", "epsilon", "small"),
    ("knots_breadcrumbs", "gamma", "small"),
    ("star", "eta", 0),
    ("star", "eta", 101),
    ("star", "eta", "all"),
    ("star", "embeddings", "none"),
    ("star", "weight", "heavy"),
    ("star", "lambda", "half"),
    ("star", "normalize", "sometimes"),
]


@pytest.mark.parametrize(("method", "parameter", "value"), OUT_OF_RANGE)
def test_a_parameter_out_of_range(
    method: str, parameter: str, value: Any, llama: Family, out: Path
):
    result = try_mergekit_yaml(recipe(method, llama, **{parameter: value}), out)
    _assert_refused(result, out, method, f"`{parameter}`", str(_wrong(value)))


def test_a_parameter_of_one_input_out_of_range(llama: Family, out: Path):
    wrong = recipe("star", llama)
    wrong["models"][1]["parameters"] = {"eta": 120}
    _assert_refused(try_mergekit_yaml(wrong, out), out, "star", "`eta`", "120", "100")


@pytest.mark.parametrize("key", ["dtype", "out_dtype"])
@pytest.mark.parametrize("value", ["int64", "bf16"])
def test_a_dtype_that_weights_cannot_be_of(key: str, value: str, llama: Family, out: Path):
    wrong = recipe("drm", llama) | {key: value}
    told = f"`{key}` must be float32, bfloat16, float16 or float64, got {value}."
    _assert_refused(try_mergekit_yaml(wrong, out), out, told)
    adapter = checkpoints.write_adapter(out.parent / "one", checkpoints.llama(), 1, ["q_proj"])
    wrong["models"] = [{"model": f"{llama.base}+{adapter}"}]
    path = out.parent / "recipe.yml"
    path.write_text(yaml.safe_dump(wrong))
    for command in (["inspect", str(path), "--out", str(out)], ["adapter", str(path), str(out)]):
        _assert_refused(CliRunner().invoke(main, command), out, told)
        assert not out.exists()


@pytest.mark.parametrize("method", METHODS)
def test_no_base_model(method: str, llama: Family, out: Path):
    wrong = recipe(method, llama)
    del wrong["base_model"]
    _assert_refused(try_mergekit_yaml(wrong, out), out, method, "`base_model`")


@pytest.mark.parametrize("method", METHODS)
def test_a_model_listed_twice(method: str, llama: Family, out: Path):
    twice = recipe(method, Family(llama.base, (llama.tuned[0], llama.tuned[0])))
    _assert_refused(try_mergekit_yaml(twice, out), out, method, "Duplicate")


@pytest.mark.parametrize("method", METHODS)
def test_shapes_that_differ(method: str, llama: Family, out: Path):
    wider = out.parent / "wider"
    checkpoints.llama(intermediate_size=64).save_pretrained(wider)
    wrong = recipe(method, Family(llama.base, (llama.tuned[0], wider)))
    result = try_mergekit_yaml(wrong, out)
    _assert_refused(result, out, "mlp.", str(wider), "48", "64")


@pytest.mark.parametrize("method", METHODS)
def test_vocabularies_that_differ_without_a_tokenizer(method: str, llama: Family, out: Path):
    larger = out.parent / "larger"
    checkpoints.llama(vocab_size=40).save_pretrained(larger)
    wrong = recipe(method, Family(llama.base, (llama.tuned[0], larger)))
    _assert_refused(try_mergekit_yaml(wrong, out), out, str(larger), "tokenizer")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite(method: str, value: float, llama: Family, out: Path):
    broken = _with_value(llama.tuned[1], value, out.parent / "broken")
    wrong = recipe(method, Family(llama.base, (llama.tuned[0], broken)))
    _assert_refused(try_mergekit_yaml(wrong, out), out, WEIGHT, str(broken))


@pytest.mark.parametrize("method", METHODS)
def test_a_base_that_is_not_finite(method: str, llama: Family, out: Path):
    broken = _with_value(llama.base, math.nan, out.parent / "broken")
    wrong = recipe(method, Family(broken, llama.tuned))
    _assert_refused(try_mergekit_yaml(wrong, out), out, WEIGHT, str(broken))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["base", "delta"])
def test_values_that_out_dtype_has_no_range_for(method: str, where: str, llama: Family, out: Path):
    """Also where no input changes the tensor, and mergekit only casts it."""
    large = [
        _with_value(folder, 1e6, out.parent / folder.name)
        for folder in (llama.base, *llama.tuned[:1])
    ]
    inputs = (large[1],) if where == "delta" else (large[0], large[0])
    copies = tuple(_linked(folder, out.parent / f"input-{n}") for n, folder in enumerate(inputs))
    wrong = recipe(method, Family(large[0], copies))
    result = try_mergekit_yaml({**wrong, "out_dtype": "float16"}, out)
    _assert_refused(result, out, method, WEIGHT, "float16", "`out_dtype`")
    mergekit_yaml({**wrong, "out_dtype": "bfloat16"}, out)


def _linked(folder: Path, link: Path) -> Path:
    link.symlink_to(folder, target_is_directory=True)
    return link


def _assert_refused(result: Result, out: Path, *named: str) -> None:
    """Check for `Error: …` with all that is `named`, and that no output looks merged."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    sentence = result.output[result.output.index("Error: ") :]
    for part in named:
        assert part in sentence
    assert not (out.exists() and MERGED & {path.name for path in out.iterdir()})


def _wrong(value: Any) -> Any:
    """The one value that is out of range in a gradient or behind a filter."""
    return 2 if isinstance(value, list) else value


def _with_value(folder: Path, value: float, copy: Path) -> Path:
    """Copy a checkpoint with one entry of one weight set to `value`."""
    weights = load_file(folder / "model.safetensors")
    weights[WEIGHT][3, 5] = torch.tensor(value)
    copy.mkdir()
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    (copy / "config.json").write_text((folder / "config.json").read_text())
    return copy
