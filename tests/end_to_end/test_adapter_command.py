"""`mergekit-spectral adapter`: the merged adapter is the full merge, without the base's weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from reference import projected_onto_shared_bases, relative_error
from safetensors import safe_open
from safetensors.torch import load_file
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml
from support.expected import merged_delta
from support.recipe_builders import METHODS
from transformers import AutoModelForCausalLM

from mergekit_spectral.command_line.main import main

TARGETS = [(("q_proj", "v_proj"), 4), (("q_proj", "up_proj"), 2), (("v_proj", "down_proj"), 3)]


@pytest.fixture(scope="module")
def adapters(llama: Family, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("adapters")
    base = checkpoints.llama()
    return tuple(
        checkpoints.write_adapter(folder / str(seed), base, seed, targets, rank)
        for seed, (targets, rank) in enumerate(TARGETS, start=1)
    )


@pytest.fixture
def recipe(llama: Family, adapters: tuple[Path, ...]) -> dict[str, Any]:
    return {
        "merge_method": "knots_ties",
        "base_model": str(llama.base),
        "models": [{"model": f"{llama.base}+{adapter}"} for adapter in adapters],
        "parameters": {"lambda": 0.7, "weight": [1, 0.5]},
    }


def run(recipe: dict[str, Any], out: Path, *options: str) -> Result:
    path = out.parent / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe))
    return CliRunner().invoke(main, ["adapter", str(path), str(out), *options])


def succeed(recipe: dict[str, Any], out: Path, *options: str) -> dict[str, torch.Tensor]:
    result = run(recipe, out, *options)
    assert result.exit_code == 0, result.output
    return load_file(out / "adapter_model.safetensors")


def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(torch.arange(1, 17)[None]).logits.detach()


@pytest.mark.parametrize("method", METHODS)
def test_has_the_logits_of_the_full_merge(
    method: str, recipe: dict[str, Any], llama: Family, out: Path
):
    recipe["merge_method"] = method
    succeed(recipe, out)
    full = mergekit_yaml(recipe, out.parent / "full")
    adapted = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(llama.base), str(out)
    )
    expected = logits(AutoModelForCausalLM.from_pretrained(full))
    plain = logits(AutoModelForCausalLM.from_pretrained(llama.base))
    assert (logits(adapted) - expected).norm() < 1e-5 * (expected - plain).norm()


def test_needs_only_the_configuration_of_the_base(recipe: dict[str, Any], out: Path):
    whole = succeed(recipe, out)
    bare = out.parent / "bare"
    bare.mkdir()
    shutil.copy(Path(recipe["base_model"]) / "config.json", bare)
    text = yaml.safe_dump(recipe).replace(recipe["base_model"], str(bare))
    lean = succeed(yaml.safe_load(text), out.parent / "lean")
    assert whole.keys() == lean.keys()
    assert all(torch.equal(whole[key], lean[key]) for key in whole)


def test_all_weights_have_one_rank(recipe: dict[str, Any], out: Path):
    """Zeros fill up the factors of smaller rank, so no server needs a pattern."""
    tensors = succeed(recipe, out)
    config = peft.PeftConfig.from_pretrained(str(out))
    assert config.r == config.lora_alpha == 7  # v_proj: 4 + 3
    assert not config.rank_pattern
    assert not config.alpha_pattern
    assert {tensor.shape["lora_B" in key] for key, tensor in tensors.items()} == {7}
    lean = succeed(recipe, out.parent / "lean", "--rank-pattern")
    for key, tensor in tensors.items():
        rows, columns = lean[key].shape
        assert torch.equal(tensor[:rows, :columns], lean[key])
        assert tensor.count_nonzero() == lean[key].count_nonzero()


def test_ranks_and_names_in_the_configuration(recipe: dict[str, Any], out: Path):
    tensors = succeed(recipe, out, "--rank-pattern")
    config = peft.PeftConfig.from_pretrained(str(out))
    assert config.base_model_name_or_path == recipe["base_model"]
    assert set(config.target_modules) == {"q_proj", "v_proj", "up_proj", "down_proj"}
    assert config.r == config.lora_alpha == 7  # v_proj: 4 + 3
    ranks = {name.rsplit(".", 1)[1]: rank for name, rank in config.rank_pattern.items()}
    assert ranks == {"q_proj": 6, "up_proj": 2, "down_proj": 3}
    assert config.alpha_pattern == config.rank_pattern
    for key, tensor in tensors.items():
        kind = key.split(".")[-3]
        assert tensor.shape[0 if ".lora_A." in key else 1] == ranks.get(kind, 7)


@pytest.mark.parametrize("method", METHODS)
def test_rank_limits_every_weight(
    method: str, recipe: dict[str, Any], adapters: tuple[Path, ...], out: Path
):
    """A merged update that fits is kept; of others, the method decides what is compressed."""
    weights = [1.0, 0.5, 2.0]
    settings = {"eta": 100.0} if method == "star" else {}  # else its updates fit
    recipe |= {"merge_method": method, "parameters": {"lambda": 0.7, **settings}}
    for entry, weight in zip(recipe["models"], weights, strict=True):
        entry["parameters"] = {"weight": weight}
    tensors = succeed(recipe, out, "--rank", "3", "--rank-pattern")
    assert max(t.shape[0] for key, t in tensors.items() if "lora_A" in key) == 3
    inputs = [
        updates(adapter, 8 / rank) for adapter, (_, rank) in zip(adapters, TARGETS, strict=True)
    ]
    limited = 0
    for key, actual in updates(out).items():
        deltas = [own.get(key, torch.zeros_like(actual)) for own in inputs]
        expected = merged_delta(key, deltas, method, weights=weights, lam=0.7, **settings)
        if torch.linalg.matrix_rank(expected, rtol=1e-5) > 3:
            limited += 1
            expected = best_approximation(expected, 3)
            if method in ("iso", "tsvm"):
                smaller, _ = projected_onto_shared_bases(deltas, 3, weights)
                expected = merged_delta(key, smaller, method, weights=weights, lam=0.7)
        assert relative_error(actual, expected) < 1e-5
    assert limited > 0


def best_approximation(update: torch.Tensor, rank: int) -> torch.Tensor:
    U, s, Vh = torch.linalg.svd(update)
    return (U[:, :rank] * s[:rank]) @ Vh[:rank]


def updates(adapter: Path, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Return an adapter's updates in float64, by the key of their factor A."""
    tensors = load_file(adapter / "adapter_model.safetensors")
    return {
        key: scale * tensors[key.replace("lora_A", "lora_B")].double() @ tensor.double()
        for key, tensor in tensors.items()
        if "lora_A" in key
    }


@pytest.mark.parametrize("method", ["knots_ties", "tsvm"])
def test_rank_has_no_effect_where_energy_gives_a_smaller_one(
    method: str, recipe: dict[str, Any], out: Path
):
    recipe["merge_method"] = method
    expected = succeed(recipe, out, "--energy", "0.5")
    tensors = succeed(recipe, out.parent / "both", "--energy", "0.5", "--rank", "6")
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)


def test_energy_gives_the_smallest_rank(recipe: dict[str, Any], out: Path):
    tensors = succeed(recipe, out, "--energy", "0.8", "--rank-pattern")
    for kept, one_less in _assert_best(recipe, out, tensors):
        assert kept >= 0.8 > one_less


def _assert_best(
    recipe: dict[str, Any], out: Path, tensors: dict[str, torch.Tensor]
) -> list[tuple[float, float]]:
    """Compare with the whole update's SVD; return what is kept at this rank and at one less."""
    whole = succeed(recipe, out.parent / "whole")
    shares = []
    for key in (key for key in tensors if "lora_A" in key):
        other = key.replace("lora_A", "lora_B")
        update = whole[other].double() @ whole[key].double()
        s, r = torch.linalg.svdvals(update), tensors[key].shape[0]
        expected = best_approximation(update, r)
        actual = tensors[other].double() @ tensors[key].double()
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(s[0]))
        squares = s.square() / s.square().sum()
        shares.append((float(squares[:r].sum()), float(squares[: r - 1].sum())))
    return shares


def test_what_a_server_does_not_take_is_reported(recipe: dict[str, Any], out: Path):
    output = " ".join(run(recipe, out).output.split())
    assert f"Ready for peft, vLLM, llama.cpp; `mergekit-spectral check {out}` prints" in output
    output = " ".join(run(recipe, out, "--overwrite", "--rank-pattern").output.split())
    assert "llama.cpp does not take it: it would scale 9 of 12 updates wrongly" in output
    assert "Ready for peft, vLLM; " in output


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype(dtype: str, recipe: dict[str, Any], out: Path):
    tensors = succeed(recipe, out, "--dtype", dtype)
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}


def test_table_and_card(recipe: dict[str, Any], out: Path, adapters: tuple[Path, ...]):
    result = run(recipe, out, "--rank", "1")
    assert "| down_proj |" in result.output
    assert "Update lost: the share of the merged update's squared norm" in result.output
    assert "do not say what the adapter has lost in accuracy" in result.output
    assert "inputs" not in result.output
    card = (out / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["library_name"] == "peft"
    base = Path(recipe["base_model"])
    assert metadata["base_model"] == f"./{base.name}"
    assert str(base.parent) not in card
    names = [f"./{base.name}+./{adapter.name}" for adapter in adapters]
    in_card = yaml.safe_load(card.split("```yaml")[1].split("```")[0])
    assert in_card == {
        **recipe,
        "base_model": f"./{base.name}",
        "models": [{"model": name} for name in names],
    }
    assert "mergekit-spectral adapter recipe.yml merged/ --rank 1\n" in card
    with safe_open(out / "adapter_model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_losses_of_inputs_and_of_the_update_are_told_apart(recipe: dict[str, Any], out: Path):
    recipe["merge_method"] = "iso"
    whole = run(recipe, out)
    assert "0.00%" in whole.output
    assert "lost in accuracy" not in whole.output
    limited = run(recipe, out, "--rank", "2", "--overwrite")
    assert "Inputs lost: the share of the inputs' squared norms" in limited.output
    assert "Update lost" not in limited.output  # the merge of the projected inputs has this rank
    both = run(recipe, out, "--rank", "2", "--energy", "0.5", "--overwrite")
    assert "Inputs lost" in both.output
    assert "Update lost" in both.output


def test_quiet(recipe: dict[str, Any], out: Path):
    assert run(recipe, out, "--rank", "1", "--quiet").output == ""


def test_what_an_adapter_cannot_hold_is_named(recipe: dict[str, Any], llama: Family, out: Path):
    model = AutoModelForCausalLM.from_pretrained(llama.base)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    extra = out.parent / "extra"
    peft.get_peft_model(model, config).save_pretrained(extra)
    recipe["models"].append({"model": f"{llama.base}+{extra}"})
    result = run(recipe, out)
    assert result.exit_code == 0, result.output
    assert "Left out: lm_head.weight of" in result.output
    assert not any("lm_head" in key for key in load_file(out / "adapter_model.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merge_method": "ties"}, "into an adapter; use one of drm, star, iso, tsvm, actmat,"),
        ({"merge_method": "drn"}, "into an adapter; use one of drm, star, iso, tsvm, actmat,"),
        ({"parameters": {"lambda": "high"}}, "parameter `lambda` must be from -3.4e38"),
        ({"base_model": None}, "set `base_model` in the recipe"),
        ({"models": []}, "Exactly one of 'models', 'slices', or 'modules' must be present"),
    ],
)
def test_recipes_that_make_no_adapter(
    change: dict[str, Any], message: str, recipe: dict[str, Any], out: Path
):
    _assert_refused(run({**recipe, **change}, out), out, message)


def test_a_refusal_of_the_inner_method_names_the_tensor(recipe: dict[str, Any], out: Path):
    recipe |= {"merge_method": "knots_della", "parameters": {"density": 0.9, "epsilon": 0.15}}
    _assert_refused(run(recipe, out), out, "The tensor is model.layers.")


def test_inputs_that_are_no_adapters(recipe: dict[str, Any], llama: Family, out: Path):
    recipe["models"][1] = {"model": str(llama.tuned[0])}
    _assert_refused(run(recipe, out), out, f"Input {llama.tuned[0]} is not an adapter on")


def test_adapters_that_change_nothing(recipe: dict[str, Any], out: Path):
    for entry in recipe["models"]:
        entry["parameters"] = {"weight": 0}
    _assert_refused(run(recipe, out), out, "so there is nothing to write")


@pytest.mark.parametrize("base_model", ["base", "another"])
def test_slices_make_no_adapter(base_model: str, recipe: dict[str, Any], llama: Family, out: Path):
    """Also such as are compared to several bases."""
    bases = {"base": str(llama.base), "another": str(llama.tuned[0])}
    recipe["slices"] = [
        {"sources": [{**entry, "layer_range": [0, 3]} for entry in recipe.pop("models")[:2]]},
    ]
    recipe["slices"][0]["base_model"] = bases[base_model]
    _assert_refused(run(recipe, out), out, "write the inputs under `models:`, not under `slices:`")


@pytest.mark.parametrize(
    "change", [{"tokenizer_source": "union"}, {"tokenizer": {"source": "base"}}], ids=str
)
def test_another_tokenizer_makes_no_adapter(
    change: dict[str, Any], recipe: dict[str, Any], out: Path
):
    message = f"An adapter keeps the tokenizer of its base: remove `{next(iter(change))}`"
    _assert_refused(run({**recipe, **change}, out), out, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "transformers cannot read its config.json"),
        ({"model_type": None}, "transformers cannot read its config.json"),
        ({"model_type": "llamma"}, "transformers cannot read its config.json"),
        ({"architectures": None}, "does not name exactly one architecture in its config.json"),
        ({"architectures": ["LlamaForCausalLM"] * 2}, "does not name exactly one architecture"),
        ({"architectures": ["OPTForCausalLM"]}, "mergekit has no definition of the architecture"),
        ({"num_attention_heads": 0}, "transformers cannot"),
        ({"vocab_size": -1}, "transformers cannot"),
        ({"hidden_size": "wide"}, "transformers cannot"),
    ],
    ids=str,
)
def test_bases_that_cannot_be_read(
    change: dict[str, Any] | None, message: str, recipe: dict[str, Any], out: Path
):
    base = out.parent / "base"
    base.mkdir()
    if change is not None:
        config = json.loads((Path(recipe["base_model"]) / "config.json").read_text())
        (base / "config.json").write_text(json.dumps({**config, **change}))
    text = yaml.safe_dump(recipe).replace(recipe["base_model"], str(base))
    _assert_refused(run(yaml.safe_load(text), out), out, message)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_in_bin_that_hold_parameters(
    method: str, recipe: dict[str, Any], adapters: tuple[Path, ...], out: Path
):
    """As torch.save writes them from a module; they ask for gradients."""
    recipe["merge_method"] = method
    expected = succeed(recipe, out.parent / "expected")
    text = yaml.safe_dump(recipe)
    for number, adapter in enumerate(adapters):
        copy = out.parent / f"bin-{number}"
        shutil.copytree(adapter, copy)
        file = copy / "adapter_model.safetensors"
        factors = {key: torch.nn.Parameter(tensor) for key, tensor in load_file(file).items()}
        file.unlink()
        torch.save(factors, copy / "adapter_model.bin")
        text = text.replace(str(adapter), str(copy))
    tensors = succeed(yaml.safe_load(text), out)
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)


@pytest.mark.parametrize("scale", [1e300, 1e38, 1e25])
@pytest.mark.parametrize("method", METHODS)
def test_updates_beyond_float32(
    method: str, scale: float, recipe: dict[str, Any], adapters: tuple[Path, ...], out: Path
):
    recipe["merge_method"] = method
    huge = out.parent / "huge"
    shutil.copytree(adapters[0], huge)
    config = json.loads((huge / "adapter_config.json").read_text())
    (huge / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": scale}))
    recipe["models"][0]["model"] = f"{recipe['base_model']}+{huge}"
    result = run(recipe, out)
    if result.exit_code == 0:
        for tensor in load_file(out / "adapter_model.safetensors").values():
            assert tensor.isfinite().all()
    else:
        _assert_refused(result, out, "")


def test_an_adapter_in_the_folder_is_replaced(recipe: dict[str, Any], out: Path):
    succeed(recipe, out, "--rank", "1")
    assert len(succeed(recipe, out, "--overwrite")) > 0
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 7
    assert len(list(out.iterdir())) == 3


def _assert_refused(result: Result, out: Path, message: str) -> None:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not out.exists()
