"""`mergekit-spectral check` on recipes that are wrong in one place each."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from mergekit.options import MergeOptions
from safetensors.torch import load, load_file
from support import checkpoints, hub
from support.checkpoints import Family
from support.command import try_mergekit_yaml
from support.recipe_builders import recipe as plain_recipe
from support.stand_ins import StandIns

from mergekit_spectral.checking.check import Report, check
from mergekit_spectral.command_line.main import main
from mergekit_spectral.recipe.findings import Finding
from mergekit_spectral.recipe.text import dotted

Recipe = dict[str, Any]
ROOT = Path(__file__).parents[2]


class Workshop:
    """A family of models with an adapter, and room for broken copies of them.

    Attributes:
        family: three fine-tunes of a Llama.
        folder: of the test's own.
    """

    def __init__(self, family: Family, adapter: Path, folder: Path):
        self.family, self.adapter, self.folder = family, adapter, folder

    def recipe(self, method: str = "drm", **parameters: Any) -> Recipe:
        return plain_recipe(method, self.family, **parameters)

    def lora_recipe(self, method: str = "drm", adapter: Path | None = None) -> Recipe:
        path = f"{self.family.base}+{adapter or self.adapter}"
        return {**self.recipe(method), "models": [{"model": path}]}

    def copied(self, path: Path) -> Path:
        """A copy to break."""
        copy = self.folder / f"copy-of-{path.name}"
        shutil.copytree(path, copy)
        return copy

    def with_model(self, path: Path | str, **more: Any) -> Recipe:
        """A recipe with one model more."""
        recipe = self.recipe()
        return {**recipe, "models": [*recipe["models"], {"model": str(path), **more}]}

    def configured(self, path: Path, **values: Any) -> Path:
        """A copy with other values in its config.json, None to leave one out."""
        copy = self.copied(path)
        config = json.loads((copy / "config.json").read_text()) | values
        kept = {name: value for name, value in config.items() if value is not None}
        (copy / "config.json").write_text(json.dumps(kept))
        return copy

    def weighted(self, *weights: float | None) -> Recipe:
        """A TIES recipe with weights of the models' own."""
        models = [
            {"model": str(path), **({} if weight is None else {"parameters": {"weight": weight}})}
            for path, weight in zip(self.family.tuned, weights, strict=True)
        ]
        return {**self.recipe("ties"), "models": models}

    def cancelling(self, method: str) -> Recipe:
        """Two inputs whose weights sum to zero."""
        models = [
            {"model": str(path), "parameters": {"weight": weight}}
            for path, weight in zip(self.family.tuned, (1.0, -1.0), strict=False)
        ]
        recipe = {**self.recipe(method), "models": models}
        return without(recipe, "base_model") if method == "linear" else recipe

    def without_tokenizer(self) -> Path:
        copy = self.copied(self.family.base)
        for path in copy.glob("tokenizer*"):
            path.unlink()
        return copy

    def with_token(self, token: str, source: Any) -> Recipe:
        tokenizer = {"source": "base", "tokens": {token: {"source": source}}}
        return {**self.recipe(), "tokenizer": tokenizer}

    def slices_without_base(self) -> Recipe:
        recipe = self.slices([0, 3], [0, 3])
        return {**recipe, "slices": [{"sources": recipe["slices"][0]["sources"][1:]}]}

    def slices(self, *ranges: list[int], method: str = "drm") -> Recipe:
        """A recipe of one slice, with one source for each range."""
        models = (self.family.base, *self.family.tuned)
        sources = [
            {"model": str(model), "layer_range": layers}
            for model, layers in zip(models, ranges, strict=False)
        ]
        base = str(self.family.base)
        return {"merge_method": method, "base_model": base, "slices": [{"sources": sources}]}


@pytest.fixture(scope="module")
def adapter(llama: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "one"
    checkpoints.write_adapter(folder, checkpoints.llama(), 1, ["q_proj", "up_proj"])
    return folder


@pytest.fixture(scope="module")
def family(llama: Family, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """The Llamas, with tokenizers."""
    folder = tmp_path_factory.mktemp("family")
    copies = [
        Path(shutil.copytree(path, folder / path.name)) for path in (llama.base, *llama.tuned)
    ]
    for copy in copies:
        checkpoints.write_tokenizer(copy)
    return Family(copies[0], tuple(copies[1:]))


@pytest.fixture
def workshop(family: Family, adapter: Path, tmp_path: Path) -> Workshop:
    return Workshop(family, adapter, tmp_path)


def checked(recipe: Recipe | str, folder: Path, **options: Any) -> Report:
    path = folder / "recipe.yml"
    path.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe, sort_keys=False))
    return check(path, MergeOptions(**options), folder)


def without(recipe: Recipe, key: str) -> Recipe:
    return {name: value for name, value in recipe.items() if name != key}


def first_input(recipe: Recipe, **parameters: Any) -> Recipe:
    """Give the first model parameters of its own."""
    models = [{**recipe["models"][0], "parameters": parameters}, *recipe["models"][1:]]
    return {**recipe, "models": models}


def slerp(shop: Workshop, **parameters: float) -> Recipe:
    recipe = shop.recipe("slerp", **parameters)
    return {**recipe, "models": [{"model": str(shop.family.base)}, recipe["models"][0]]}


def in_modules(recipe: Recipe, **modules: str) -> Recipe:
    """Put the models of a recipe into modules."""
    own = {name: {kind: recipe[kind]} for name, kind in modules.items()}
    return {**without(recipe, "models"), "modules": own}


def quantize(tensors: dict[str, torch.Tensor]) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)


def truncated(copy: Path) -> Path:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    return copy


def numbered(copy: Path) -> Path:
    (copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": 3}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    return copy


def removed(copy: Path, name: str) -> Path:
    (copy / name).unlink()
    return copy


def with_garbage(shop: Workshop) -> Path:
    copy = removed(shop.copied(shop.family.tuned[0]), "model.safetensors")
    (copy / "pytorch_model.bin").write_bytes(b"garbage")
    return copy


def of_another_vocabulary(shop: Workshop) -> Recipe:
    checkpoints.llama(vocab_size=40).save_pretrained(shop.folder / "larger")
    return shop.with_model(shop.folder / "larger")


def of_another_width(shop: Workshop) -> Recipe:
    checkpoints.llama(intermediate_size=64).save_pretrained(shop.folder / "wider")
    return shop.with_model(shop.folder / "wider")


def of_more_layers(shop: Workshop) -> Recipe:
    checkpoints.llama(num_hidden_layers=4).save_pretrained(shop.folder / "deeper")
    return shop.with_model(shop.folder / "deeper")


def of_another_architecture(shop: Workshop) -> Recipe:
    checkpoints.fine_tuned(checkpoints.mistral(), 7).save_pretrained(shop.folder / "mistral")
    return shop.with_model(shop.folder / "mistral")


def with_foreign_adapter(shop: Workshop, **config: object) -> Recipe:
    foreign = checkpoints.llama(**config)
    checkpoints.write_adapter(shop.folder / "foreign", foreign, 1, ["q_proj"])
    return shop.lora_recipe(adapter=shop.folder / "foreign")


def repacked(shop: Workshop, change: Callable[[dict[str, Any]], None]) -> Recipe:
    """One model more, with changed tensors."""
    copy = shop.copied(shop.family.tuned[0])
    tensors = checkpoints.tensors(copy)
    change(tensors)
    checkpoints.write_tensors(copy, tensors)
    return shop.with_model(copy)


# What is wrong, how a recipe becomes so, and the finding: severity, message, key.
BROKEN: dict[str, tuple[Callable[[Workshop], Recipe | str], str, str, str]] = {
    "not YAML": (lambda w: "merge_method: [drm\n", "error", "is not YAML: ", ""),
    "a control character": (lambda w: "merge_method: \x07drm\n", "error", "is not YAML: ", ""),
    "no date": (lambda w: "merge_method: 2024-13-45\n", "error", "is not YAML: ", ""),
    "a list in itself": (
        lambda w: "merge_method: drm\nmodels: &a [*a]\n",
        "error",
        "the file is nested too deeply, or in itself.",
        "",
    ),
    "a null": (
        lambda w: w.recipe(density=None),
        "error",
        "`parameters.density`: has no form that mergekit reads, got nothing.",
        "parameters.density",
    ),
    "not a mapping": (lambda w: "- drm\n", "error", "is not a mapping", ""),
    "a key twice": (
        lambda w: yaml.safe_dump(w.recipe()) + "merge_method: star\n",
        "warning",
        "`merge_method` is listed here for the second time",
        "merge_method",
    ),
    "no method": (
        lambda w: without(w.recipe(), "merge_method"),
        "error",
        "`merge_method`: Field required",
        "merge_method",
    ),
    "no models": (
        lambda w: without(w.recipe(), "models"),
        "error",
        "Exactly one of 'models', 'slices', or 'modules' must be present",
        "",
    ),
    "an unknown method": (
        lambda w: w.recipe("knot_ties"),
        "error",
        "no merge method knot_ties; did you mean knots_ties?",
        "merge_method",
    ),
    "a misspelt key": (
        lambda w: {**w.recipe(), "base_modell": "x"},
        "warning",
        "no key `base_modell` and ignores it; did you mean base_model?",
        "base_modell",
    ),
    "an option as a key": (
        lambda w: {**w.recipe(), "random_seed": 0},
        "warning",
        "is no key of a recipe, and mergekit ignores it; give --random-seed to `mergekit-yaml`.",
        "random_seed",
    ),
    "a name, which is for several recipes": (
        lambda w: {**w.recipe(), "name": "mine"},
        "note",
        "`mergekit-yaml` ignores `name`; `mergekit-multi` goes by it.",
        "name",
    ),
    "a misspelt key of a model": (
        lambda w: w.with_model(w.family.base, parameter={"weight": 2}),
        "warning",
        "no key `parameter` in models[3] and ignores it; did you mean parameters?",
        "models[3].parameter",
    ),
    "a misspelt key of a filter": (
        lambda w: w.recipe(density=[{"filtre": "mlp", "value": 0.5}]),
        "warning",
        "no key `filtre` in parameters.density[0] and ignores it; did you mean filter?",
        "parameters.density[0].filtre",
    ),
    "a misspelt parameter": (
        lambda w: w.recipe(densty=0.5),
        "warning",
        "drm has no parameter `densty`, and mergekit ignores it; did you mean density?",
        "parameters.densty",
    ),
    "a misspelt parameter of a model": (
        lambda w: first_input(w.recipe("ties", weight=1), wieght=0.5),
        "warning",
        "ties has no parameter `wieght`, and mergekit ignores it; did you mean weight?",
        "models[0].parameters.wieght",
    ),
    "another method's parameter": (
        lambda w: w.recipe("star", density=0.5),
        "note",
        "star has no parameter `density` and ignores it; ",
        "parameters.density",
    ),
    "a shared parameter of a model": (
        lambda w: first_input(w.recipe(), **{"lambda": 0.5}),
        "warning",
        "`lambda` has no effect here: it holds for all inputs together",
        "models[0].parameters.lambda",
    ),
    "a parameter of the base": (
        lambda w: w.with_model(w.family.base, parameters={"weight": 2}),
        "warning",
        "`weight` has no effect here: ",
        "models[3].parameters.weight",
    ),
    "a value out of range": (
        lambda w: w.recipe(density=1.5),
        "error",
        "drm: parameter `density` must be above 0 and at most 1, got 1.5.",
        "parameters.density",
    ),
    "a value of another type, mergekit's own method": (
        lambda w: w.recipe("ties", weight="heavy"),
        "error",
        "ties: parameter `weight` must be a number, got 'heavy'.",
        "parameters.weight",
    ),
    "a value without sense": (
        lambda w: w.recipe("knots_ties", density=0),
        "warning",
        "at 0 or below nothing of the input is left",
        "parameters.density",
    ),
    "an empty gradient": (
        lambda w: w.recipe(density=[]),
        "warning",
        "is an empty list",
        "parameters.density",
    ),
    "a filter for nothing": (
        lambda w: w.recipe(density=[{"filter": "mlpp", "value": 0.5}, {"value": 1}]),
        "warning",
        "the filter 'mlpp' is in no tensor's name",
        "parameters.density[0]",
    ),
    "a number beyond a share": (
        lambda w: slerp(w, t=1.5),
        "warning",
        "0 is the base model and 1 the other, and this lies beyond one of them",
        "parameters.t",
    ),
    "a parameter that must be given": (
        lambda w: w.recipe("ties"),
        "error",
        "ties needs a value of `weight`; set it under `parameters` of the whole recipe, or under "
        "that of each model.",
        "",
    ),
    "a parameter that must be given, of the whole recipe": (
        lambda w: without(slerp(w), "parameters"),
        "error",
        "slerp needs a value of `t`; set it under `parameters` of the whole recipe.",
        "",
    ),
    "a parameter that one model lacks": (
        lambda w: w.weighted(1.0, None, 1.0),
        "error",
        "ties needs a value of `weight`, also for ",
        "models[1]",
    ),
    "a module that is not there": (
        lambda w: in_modules(w.recipe(), defualt="models"),
        "error",
        "the models have no module defualt; did you mean default?",
        "modules.defualt",
    ),
    "a model twice": (
        lambda w: w.with_model(w.family.tuned[0]),
        "error",
        "is listed twice among the models to merge; list it once",
        "models[3].model",
    ),
    "too many models": (
        lambda w: w.recipe("slerp", t=0.5),
        "error",
        "slerp cannot merge 3 models and the base: Merge method requires exactly 2 inputs; got 4.",
        "models",
    ),
    "slices without the base": (
        lambda w: w.slices_without_base(),
        "error",
        "drm cannot merge 1 model: Base input is not present in merge inputs.",
        "slices[0].sources",
    ),
    "a chat template": (
        lambda w: {**w.recipe(), "tokenizer_source": "base", "chat_template": "chatmll"},
        "error",
        "`chat_template` must be auto, alpaca, chatml, ",
        "chat_template",
    ),
    "a chat template without a tokenizer": (
        lambda w: {**w.recipe(), "chat_template": "chatmll"},
        "warning",
        "`chat_template` must be auto, alpaca, chatml, ",
        "chat_template",
    ),
    "a token that its model does not have": (
        lambda w: w.with_token("<new>", str(w.family.base)),
        "error",
        "whose tokenizer has no '<new>'",
        "tokenizer.tokens.<new>",
    ),
    "a name that no file can have": (
        lambda w: w.with_model("m" * 300),
        "error",
        "is neither a folder here",
        "models[3].model",
    ),
    "a tokenizer that is not there": (
        lambda w: {**w.recipe(), "tokenizer_source": "./nowhere"},
        "error",
        "Model ./nowhere is not there",
        "tokenizer_source",
    ),
    "a model without the tokenizer that is asked of it": (
        lambda w: {**w.recipe(), "tokenizer": {"source": str(w.without_tokenizer())}},
        "error",
        "has no tokenizer, which the merged model is to have",
        "tokenizer.source",
    ),
    "a base without a tokenizer": (
        lambda w: {
            **w.recipe(),
            "base_model": str(w.without_tokenizer()),
            "tokenizer": {"source": "union"},
        },
        "error",
        "put together from the base model's, but ",
        "base_model",
    ),
    "a token of a model that is not merged": (
        lambda w: w.with_token("<s>", str(w.copied(w.family.base))),
        "error",
        "the token '<s>' is to come from ",
        "tokenizer.tokens.<s>",
    ),
    "the number of a token": (
        lambda w: w.with_token(
            "<s>", {"kind": "model_token", "model": str(w.family.base), "token_id": 99}
        ),
        "error",
        "the token '<s>' is to be token number 99 of ",
        "tokenizer.tokens.<s>",
    ),
    "quantized weights": (
        lambda w: repacked(w, quantize),
        "error",
        "Tensor model.layers.0.self_attn.q_proj.weight of model ",
        "models[3].model",
    ),
    "della's range": (
        lambda w: w.recipe("della", weight=1, density=0.9, epsilon=0.2),
        "error",
        "density ± epsilon must be between 0 and 1",
        "parameters.density",
    ),
    "no base": (
        lambda w: without(w.recipe(), "base_model"),
        "error",
        "drm needs a base model: set `base_model` to the model that the inputs were fine-tuned",
        "",
    ),
    "a dtype": (
        lambda w: {**w.recipe(), "dtype": "bf16"},
        "error",
        "`dtype` must be float32, bfloat16, float16 or float64, got bf16.",
        "dtype",
    ),
    "a dtype of whole numbers": (
        lambda w: {**w.recipe(), "dtype": "int64"},
        "error",
        "`dtype` must be float32, bfloat16, float16 or float64, got int64.",
        "dtype",
    ),
    "an output of whole numbers": (
        lambda w: {**w.recipe("ties", weight=1), "out_dtype": "torch.int64"},
        "error",
        "`out_dtype` must be float32, bfloat16, float16 or float64, got torch.int64.",
        "out_dtype",
    ),
    "a path to nothing": (
        lambda w: w.with_model("./nowhere"),
        "error",
        "Model ./nowhere is not there, seen from",
        "models[3].model",
    ),
    "a model not downloaded": (
        lambda w: w.with_model("some-lab/some-model"),
        "warning",
        "some-lab/some-model is neither a folder here nor downloaded; if the hub has it",
        "models[3].model",
    ),
    "an adapter that is not there": (
        lambda w: w.lora_recipe(adapter=w.folder / "nowhere"),
        "error",
        "nowhere is not there, seen from",
        "models[0].model",
    ),
    "an adapter as a model": (
        lambda w: w.with_model(w.adapter),
        "error",
        "is an adapter; as an input it is written base+adapter",
        "models[3].model",
    ),
    "two pluses": (
        lambda w: w.with_model("a+b+c"),
        "error",
        "Can't parse a+b+c",
        "",
    ),
    "no config": (
        lambda w: w.with_model(removed(w.copied(w.family.tuned[0]), "config.json")),
        "error",
        "has no config.json",
        "models[3].model",
    ),
    "no architecture": (
        lambda w: w.with_model(w.configured(w.family.tuned[0], architectures=None)),
        "error",
        "names no single architecture",
        "models[3].model",
    ),
    "no weights": (
        lambda w: w.with_model(removed(w.copied(w.family.tuned[0]), "model.safetensors")),
        "error",
        "has no weights that mergekit reads",
        "models[3].model",
    ),
    "a truncated file": (
        lambda w: w.with_model(truncated(w.copied(w.family.tuned[0]))),
        "error",
        "copy or download it again",
        "models[3].model",
    ),
    "weights that are none": (
        lambda w: w.with_model(with_garbage(w)),
        "error",
        "has no weights that mergekit reads",
        "models[3].model",
    ),
    "no base, of two models": (
        lambda w: without(w.recipe("slerp", t=0.5), "base_model"),
        "error",
        "slerp needs a base model: set `base_model` to one of the two models.",
        "",
    ),
    "another architecture": (
        of_another_architecture,
        "error",
        "have different architectures",
        "models[3].model",
    ),
    "more layers": (of_more_layers, "error", "must have one number of layers", "models"),
    "another width": (of_another_width, "error", "has other shapes than", "models[3].model"),
    "another vocabulary": (
        of_another_vocabulary,
        "error",
        "the vocabularies differ, ",
        "models[3].model",
    ),
    "a tensor that is missing": (
        lambda w: repacked(w, lambda tensors: tensors.pop("model.norm.weight")),
        "error",
        "lacks model.norm.weight, which the merge needs",
        "models[3].model",
    ),
    "a tensor that only one has": (
        lambda w: repacked(w, lambda tensors: tensors.update({"extra.weight": torch.ones(3)})),
        "warning",
        "alone has extra.weight, which the merge leaves out",
        "models[3].model",
    ),
    "layers that are not there": (
        lambda w: w.slices([0, 3], [1, 4]),
        "error",
        "layer_range [1, 4] goes beyond the 3 layers",
        "slices[0].sources[1].layer_range",
    ),
    "no layers": (
        lambda w: w.slices([0, 2], [2, 2]),
        "error",
        "layer_range [2, 2] has no layers",
        "slices[0].sources[1].layer_range",
    ),
    "slices of two lengths": (
        lambda w: w.slices([0, 3], [0, 2]),
        "error",
        "the sources of a slice must have the same number of layers",
        "slices[0]",
    ),
    "an adapter of another model": (
        lambda w: with_foreign_adapter(w, num_hidden_layers=5),
        "error",
        "of the 5 weights that it changes 3 are there and 2 are not",
        "models[0].model",
    ),
    "an adapter of another size": (
        lambda w: with_foreign_adapter(w, hidden_size=64),
        "error",
        "was it trained on a model of another size",
        "models[0].model",
    ),
    "an adapter under mergekit's own method": (
        lambda w: first_input(w.lora_recipe("ties"), weight=1.0),
        "error",
        "into a copy of its base first, of ",
        "models[0].model",
    ),
    "weights that cancel": (
        lambda w: w.cancelling("linear"),
        "warning",
        "sum to zero at model.embed_tokens.weight, so there is no mean: linear divides by zero",
        "models[0].parameters.weight",
    ),
    "weights that cancel in star": (
        lambda w: w.cancelling("star"),
        "warning",
        "so there is no mean: they are only added",
        "models[0].parameters.weight",
    ),
    "a quantized base's configuration": (
        lambda w: {
            **w.recipe(),
            "base_model": str(
                w.configured(w.family.base, quantization_config={"quant_method": "gptq", "bits": 4})
            ),
        },
        "warning",
        "has a `quantization_config`, which the merged model gets",
        "base_model",
    ),
    "an index that names no file": (
        lambda w: w.with_model(numbered(w.copied(w.family.tuned[0]))),
        "error",
        "its index maps tensor lm_head.weight to 3, which is no name of a file",
        "models[3].model",
    ),
    "the base as an input": (
        lambda w: w.with_model(w.copied(w.family.base)),
        "warning",
        "seems to have the same weights as the base model",
        "models[3].model",
    ),
    "an input twice": (
        lambda w: w.with_model(w.copied(w.family.tuned[1])),
        "warning",
        "so these count twice",
        "models[3].model",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    make, severity, message, key = BROKEN[fault]
    report = checked(make(workshop), workshop.folder)
    told = [finding for finding in report.findings if message in finding.message]
    assert told, [finding.message for finding in report.findings]
    assert {(finding.severity, dotted(finding.key)) for finding in told} == {(severity, key)}
    # One fault is one finding, and no check stumbles over what another has found.
    assert report.findings == tuple(told)
    assert report.failed == (severity == "error")
    if key and "required" not in message:
        _assert_line(told[0], workshop.folder / "recipe.yml")


def _assert_line(finding: Finding, recipe: Path) -> None:
    name = dotted(finding.key).rsplit(".", 1)[-1].partition("[")[0]
    assert finding.line is not None
    lines = recipe.read_text().splitlines()
    near = lines[finding.line - 1]
    assert name in near or near.lstrip().startswith("- ")


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["check", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def written(workshop: Workshop) -> Path:
    """A recipe with a warning and a note, but no error."""
    path = workshop.folder / "recipe.yml"
    path.write_text(yaml.safe_dump(workshop.recipe(densty=0.5, gamma=0.1), sort_keys=False))
    return path


def test_the_command_tells_lines_and_sizes(written: Path, workshop: Workshop):
    status, told, _ = run(written, "--out", workshop.folder)
    lines = told.splitlines()
    assert status == 0
    assert lines[0].startswith(f"{written}:8: warning: drm has no parameter `densty`, ")
    assert lines[1].startswith(f"{written}:9: note: drm has no parameter `gamma` ")
    merged = checkpoints.tensors(workshop.family.base)
    count = sum(tensor.numel() for tensor in merged.values())
    size = (workshop.family.base / "model.safetensors").stat().st_size
    matrices = [name for name in merged if name.endswith("_proj.weight")]
    assert (
        f"drm, {count / 1e6:,.1f} million parameters in {len(merged)} tensors, {len(matrices)} "
        "decompositions; about " in lines[2]
    )
    assert f"reads {4 * size / 1e6:.1f} MB, writes {4 * count / 1e6:.1f} MB of " in lines[3]
    assert "takes up to " in lines[4]
    assert lines[5] == f"{written}: runs."


def test_json_tells_the_same(written: Path, workshop: Workshop):
    status, told, _ = run(written, "--json")
    report = json.loads(told)
    assert status == 0
    assert report["runs"] is True
    assert [finding["line"] for finding in report["findings"]] == [8, 9]
    assert report["costs"]["tensors"] == len(checkpoints.tensors(workshop.family.base))


def test_quiet_leaves_errors(written: Path):
    assert run(written, "--quiet") == (0, "", "")
    written.write_text(written.read_text().replace("merge_method: drm", "merge_method: drn"))
    status, told, _ = run(written, "--quiet")
    assert status == 1
    assert told.startswith(f"{written}:1: error: there is no merge method drn; did you mean drm?")
    assert len(told.splitlines()) == 1


def test_no_recipe_is_a_mistake_in_usage(tmp_path: Path):
    status, _, told = run(tmp_path / "nowhere.yml")
    assert status == 2
    assert "does not exist" in told


def test_a_tokenizer_makes_vocabularies_agree(workshop: Workshop):
    recipe = of_another_vocabulary(workshop)
    checkpoints.write_tokenizer(workshop.folder / "larger")
    report = checked({**recipe, "tokenizer": {"source": "union"}}, workshop.folder)
    assert report.findings == ()


def test_experts_that_mergekit_puts_together(workshop: Workshop):
    family = checkpoints.write_family(workshop.folder, checkpoints.mixtral())
    names = load_file(family.base / "model.safetensors")
    assert any("experts.0." in name for name in names)
    report = checked(plain_recipe("drm", family), workshop.folder)
    assert report.findings == ()
    assert report.costs is not None


@pytest.mark.parametrize(
    ("method", "of_base", "runs"),
    [
        ("ties", False, False),
        ("ties", True, True),
        ("slerp", False, True),
        ("multislerp", False, False),
        ("multislerp", True, False),
        ("linear", False, True),
    ],
)
def test_optional_tensors_are_spared_as_mergekit_does(
    method: str, of_base: bool, runs: bool, workshop: Workshop
):
    family = checkpoints.write_family(workshop.folder, checkpoints.granite(), count=1)
    owner = family.base if of_base else family.tuned[0]
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}
    checkpoints.write_tensors(owner, {**checkpoints.tensors(owner), **bias})
    recipe = plain_recipe(method, family, weight=1.0, t=0.5)
    if method == "slerp":
        recipe["models"].append({"model": str(family.base)})
    assert checked(recipe, workshop.folder).failed != runs
    result = try_mergekit_yaml(recipe, workshop.folder / "out")
    assert (result.exit_code == 0) == runs


def test_layers_that_slices_leave_out_are_no_fault(workshop: Workshop):
    assert checked(workshop.slices([0, 2], [0, 2]), workshop.folder).findings == ()


def test_a_tensor_that_only_one_has_beside_tied_ones(workshop: Workshop):
    model = checkpoints.llama(tie_word_embeddings=True)
    family = checkpoints.write_family(workshop.folder, model)
    stored = load((family.tuned[0] / "model.safetensors").read_bytes())
    assert "lm_head.weight" not in stored
    assert checked(plain_recipe("drm", family), workshop.folder).findings == ()
    checkpoints.write_tensors(family.tuned[0], {**stored, "extra.weight": torch.ones(3)})
    (told,) = checked(plain_recipe("drm", family), workshop.folder).findings
    assert "alone has extra.weight" in told.message


def test_a_base_that_ties_what_others_do_not(workshop: Workshop):
    """The merged lm_head is dropped when the model is loaded."""
    tied = checkpoints.llama(tie_word_embeddings=True)
    tied.save_pretrained(workshop.folder / "tied")
    base = str(workshop.folder / "tied")
    report = checked({**workshop.recipe(), "base_model": base}, workshop.folder)
    assert not report.failed
    told = [f for f in report.findings if "has an lm_head of its own" in f.message]
    assert [dotted(finding.key) for finding in told] == [f"models[{n}].model" for n in range(3)]


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("mine: &mine [*mine]", True),
        ("models_: [{model: &x {y: *x}}]", True),
        # A billion entries, which nobody looks at.
        ("\n".join([f"a0: &a0 {[0] * 10}", *(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
        )]), True),
    ],
    ids=["a list in itself", "a mapping in itself", "a billion"],
)  # fmt: skip
def test_keys_that_mergekit_ignores_may_hold_anything(text: str, runs: bool, workshop: Workshop):
    report = checked(f"{text}\n{yaml.safe_dump(workshop.recipe())}", workshop.folder)
    assert not report.failed
    assert {finding.severity for finding in report.findings} == {"warning"}


def test_slices_without_layers_run_as_mergekit_runs_them(workshop: Workshop):
    recipe = workshop.slices([2, 0], [2, 0])
    whole = workshop.slices([0, 3], [0, 3])["slices"]
    recipe["slices"] += whole
    report = checked(recipe, workshop.folder)
    assert [finding.severity for finding in report.findings] == ["warning", "warning"]
    assert "layer_range [2, 0] has no layers" in report.findings[0].message
    result = try_mergekit_yaml(recipe, workshop.folder / "out")
    assert result.exit_code == 0, result.output


def test_a_tensor_without_entries(workshop: Workshop):
    name = "model.layers.0.mlp.up_proj.weight"
    recipe = repacked(workshop, lambda tensors: tensors.update({name: torch.zeros(0, 64)}))
    (told,) = checked({**recipe, "models": recipe["models"][-1:]}, workshop.folder).findings
    assert f"{name} as [0, 64] against [48, 32]" in told.message
    empty = str(recipe["models"][-1]["model"])
    alone = {**recipe, "base_model": empty, "models": [{"model": empty}]}
    assert not checked(alone, workshop.folder).failed


def test_findings_are_in_the_order_of_lines(workshop: Workshop):
    recipe = {**workshop.recipe(densty=0.5), "dtype": "bf16", "base_modell": "x"}
    recipe = {"out_dtype": "bf16", **recipe}
    lines = [finding.line for finding in checked(recipe, workshop.folder).findings]
    assert len(lines) == 4
    assert lines == sorted(lines, key=lambda line: line or 0)


@pytest.mark.parametrize("place", ["a model", "a file", "a folder that is read-only"])
def test_where_the_merged_model_cannot_go(
    place: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    (workshop.folder / "file").write_text("")
    model = workshop.family.tuned[1]
    where, severity, message = {
        "a model": (model, "warning", f"is the folder of {model}, which the merge overwrites"),
        "a file": (workshop.folder / "file" / "out", "error", "file is a file; name a folder"),
        "a folder that is read-only": (workshop.folder / "out", "error", "is read-only"),
    }[place]  # fmt: skip
    if "read-only" in place:
        monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    path = workshop.folder / "recipe.yml"
    path.write_text(yaml.safe_dump(workshop.recipe()))
    (told,) = check(path, MergeOptions(), where).findings
    assert told.severity == severity
    assert message in told.message


@pytest.mark.parametrize("broken", ["read", "look"])
def test_errors_of_the_disk_are_sentences(
    broken: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    path = workshop.folder / "recipe.yml"
    path.write_text(yaml.safe_dump(workshop.recipe()))

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error", "/broken")

    if broken == "read":
        monkeypatch.setattr(Path, "read_text", fails)
    else:
        monkeypatch.setattr(shutil, "disk_usage", fails)
    status, _, told = run(path)
    assert status == 1
    assert "/broken: Input/output error" in told
    status, _, told = run(path, "--out", "x" * 300)
    assert status == 1
    assert "Traceback" not in told


def test_folders_are_never_looked_up_on_the_hub(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    """Also where their names could be those of models there."""

    def fails(*_: Any) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(socket.socket, "connect", fails)
    monkeypatch.setattr(socket, "getaddrinfo", fails)
    monkeypatch.chdir(workshop.folder)
    for source, name in zip((workshop.family.base, *workshop.family.tuned), "abcd", strict=True):
        shutil.copytree(source, workshop.folder / "lab" / name)
    shutil.copytree(workshop.adapter, workshop.folder / "adapter")
    models = [{"model": f"lab/{name}"} for name in "bcd"] + [{"model": "lab/a+adapter"}]
    report = checked({**workshop.recipe(), "base_model": "lab/a", "models": models}, Path())
    assert not report.failed
    assert report.costs is not None


def test_a_recipe_of_some_modules(workshop: Workshop):
    report = checked(in_modules(workshop.recipe(), default="models"), workshop.folder)
    assert report.findings == ()


def test_room_for_copies_and_the_merge(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    recipe = first_input(workshop.lora_recipe("ties"), weight=1.0)
    copies = str(workshop.folder / "copies")
    base = (workshop.family.base / "model.safetensors").stat().st_size
    usage = shutil.disk_usage(workshop.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=3 * base // 2))
    _, full = checked(recipe, workshop.folder, lora_merge_cache=copies).findings
    assert full.severity == "error"
    assert full.message.startswith("the merged model and copies of LoRA inputs take ")


def test_crimes_and_copies_can_be_allowed(workshop: Workshop):
    mixed = checked(of_another_architecture(workshop), workshop.folder, allow_crimes=True)
    assert mixed.findings == ()
    recipe = first_input(workshop.lora_recipe("ties"), weight=1.0)
    (copy,) = checked(recipe, workshop.folder, lora_merge_cache="copies").findings
    assert copy.severity == "note"


def test_copies_are_counted(workshop: Workshop):
    recipe = first_input(workshop.lora_recipe("ties"), weight=1.0)
    costs = checked(recipe, workshop.folder, lora_merge_cache="copies").costs
    base = (workshop.family.base / "model.safetensors").stat().st_size
    adapter = (workshop.adapter / "adapter_model.safetensors").stat().st_size
    assert costs is not None
    assert (costs.input_bytes, costs.copy_bytes) == (base + adapter, base)
    ours = checked(workshop.lora_recipe("drm"), workshop.folder).costs
    assert ours is not None
    assert ours.copy_bytes == 0


def test_memory_is_what_is_mapped_and_held(workshop: Workshop):
    costs = {
        method: checked(workshop.recipe(method, weight=1.0), workshop.folder).costs
        for method in ("ties", "drm", "star")
    }
    tensors = checkpoints.tensors(workshop.family.base)
    size = sum(tensor.nbytes for tensor in tensors.values())
    for found in costs.values():
        assert found is not None
        # All but what comes after the last matrix.
        assert 3.8 * size < found.memory.mapped <= 4 * size
        assert found.memory.device == 0
    on_device = checked(workshop.recipe(), workshop.folder, device="cuda").costs
    assert on_device is not None
    assert 0 < on_device.memory.device < on_device.memory.host


def test_inputs_of_mergekits_own_methods_go_to_the_device(workshop: Workshop):
    recipe = workshop.recipe("ties", weight=1.0)
    costs = checked(recipe, workshop.folder, device="cuda").costs
    assert costs is not None
    largest = max(t.nbytes for t in checkpoints.tensors(workshop.family.base).values())
    # Base, three inputs and result, besides what the method holds.
    assert costs.memory.device > 5 * largest
    assert costs.memory.device == (5 + 3 * 3) * largest + 12 * largest // 4


def test_shards_are_mapped_one_at_a_time(workshop: Workshop):
    model = checkpoints.llama()
    family = checkpoints.write_family(workshop.folder, model, max_shard_size="20KB")
    shards = sorted(path.stat().st_size for path in family.base.glob("*.safetensors"))
    assert len(shards) > 3
    costs = checked(plain_recipe("drm", family), workshop.folder).costs
    assert costs is not None
    assert costs.memory.mapped <= 4 * shards[-1]


@pytest.mark.parametrize(("method", "times"), [("ties", 0), ("knots_ties", 1), ("star", 3)])
def test_decompositions_are_counted(method: str, times: int, workshop: Workshop):
    costs = checked(workshop.recipe(method, weight=1.0), workshop.folder).costs
    assert costs is not None
    matrices = [n for n in checkpoints.tensors(workshop.family.base) if n.endswith("_proj.weight")]
    assert costs.decompositions == times * len(matrices)
    assert costs.seconds > 0


def test_a_full_disk(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(workshop.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    (full,) = checked(workshop.recipe(), workshop.folder).findings
    assert full.severity == "error"
    assert "has 0.0 MB left" in full.message


def test_folders_beside_the_recipe_are_pointed_out(workshop: Workshop):
    shutil.copytree(workshop.family.base, workshop.folder / "models" / "mine")
    (told,) = checked(workshop.with_model("models/mine"), workshop.folder).findings
    assert f"there is one beside the recipe, so run mergekit in {workshop.folder}" in told.message


def test_a_revision_that_is_not_downloaded(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(workshop.folder / "hub"))
    hub.store(workshop.folder / "hub", "lab/model", "main", workshop.copied(workshop.family.base))
    (told,) = checked(workshop.with_model("lab/model@v2"), workshop.folder).findings
    assert "lab/model at revision v2 is neither a folder here nor downloaded" in told.message


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_what_is_downloaded_in_part_is_not_an_error(workshop: Workshop, hub_cache: Path):
    part = removed(workshop.copied(workshop.family.base), "model.safetensors")
    hub.store(hub_cache, "lab/model", "main", part)
    (told,) = checked(workshop.with_model("lab/model"), workshop.folder).findings
    assert told.severity == "warning"
    assert "lab/model is neither a folder here nor downloaded; if the hub has it" in told.message


def test_models_of_the_hub_that_mergekit_has_to_look_into(workshop: Workshop, hub_cache: Path):
    family = checkpoints.write_family(workshop.folder / "opt", checkpoints.opt(), count=1)
    for name, path in (("base", family.base), ("tuned", family.tuned[0])):
        hub.store(hub_cache, f"lab/{name}", "main", path)
    recipe = {"merge_method": "drm", "base_model": "lab/base", "models": [{"model": "lab/tuned"}]}
    report = checked(recipe, workshop.folder)
    assert report.findings == ()
    assert report.costs is not None


@pytest.mark.parametrize("method", ["passthrough", "drm", "karcher"])
def test_the_base_alone(method: str, workshop: Workshop):
    """As in a model that is grown out of its own layers."""
    recipe = workshop.slices([0, 2], method=method)
    recipe["slices"] *= 2
    report = checked(recipe, workshop.folder)
    assert [f for f in report.findings if f.severity != "note"] == []
    assert report.costs is not None
    assert report.costs.seconds > 0


RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*.yml"))


@pytest.mark.parametrize("path", RECIPES)
def test_our_recipes_pass(path: str):
    report = check(ROOT / path, MergeOptions(), Path())
    assert not report.failed
    elsewhere = "is neither a folder here nor downloaded"
    others = [f for f in report.findings if elsewhere not in f.message and f.severity != "note"]
    assert others == []


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("stand-ins"))


@pytest.mark.parametrize("path", [path for path in RECIPES if "smollm2" not in path])
def test_our_recipes_pass_with_their_models(path: str, stand_ins: StandIns, tmp_path: Path):
    recipe = stand_ins.applied_to(yaml.safe_load((ROOT / path).read_text()))
    report = checked(recipe, tmp_path)
    assert [finding for finding in report.findings if finding.severity != "note"] == []
    assert report.costs is not None
