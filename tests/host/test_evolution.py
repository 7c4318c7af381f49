"""mergekit's genomes for `mergekit-evolve`, with our methods."""

from __future__ import annotations

import pickle
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from mergekit.evo import genome as mergekits
from mergekit.evo.config import EvolMergeConfiguration
from mergekit.evo.genome import ModelGenome, ModelGenomeDefinition
from mergekit.merge import run_merge
from mergekit.merge_methods import registered_methods, registry
from mergekit.merge_methods.base import ParameterScope, TensorGroup
from mergekit.options import MergeOptions
from pydantic import Field, ValidationError
from support import checkpoints
from support.interpreters import output_of

from mergekit_spectral.checking.checks import check
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.recipe_check import require_valid_recipe
from mergekit_spectral.methods import STAR, SpectralMethod
from mergekit_spectral.methods.parameters import ETA, Parameter, SearchRange
from mergekit_spectral.recipe.sections import scalars, sections

OURS = {m.spec.name: m for m in registered_methods() if isinstance(m, SpectralMethod)}
ADAPTERS = ("adapter-1", "adapter-2")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, two fine-tunes and two adapters."""
    folder = tmp_path_factory.mktemp("models")
    base = checkpoints.llama(num_hidden_layers=2)
    checkpoints.write_family(folder, base, count=2)
    for seed, name in enumerate(ADAPTERS):
        checkpoints.write_adapter(folder / name, base, seed, ["q_proj", "down_proj"])
    return folder


def genome(folder: Path, method: str, **settings: Any) -> ModelGenome:
    inputs = [str(folder / "tuned-1"), str(folder / "tuned-2")]
    given = {"models": inputs, "base_model": str(folder / "base"), **settings}
    return ModelGenome(ModelGenomeDefinition(merge_method=method, **given))


def settings_of(config: MergeConfiguration, name: str) -> list[Any]:
    """Return all values of a parameter of the inputs."""
    of_inputs = [each.settings or {} for each in sections(config) if each.model is not None]
    return [value for each in of_inputs if name in each for value in scalars(each[name])]


def test_the_table_has_all_our_methods():
    entries = {name: mergekits.METHOD_PARAM_MAPS[name] for name in OURS}
    assert (
        entries.items()
        >= {
            "drm": ["weight", "density"],
            "star": ["weight", "eta"],
            "iso": ["weight"],
            "tsvm": ["weight", "share"],
            "knots": ["weight", "density"],
            "knots_task_arithmetic": ["weight"],
            "knots_breadcrumbs": ["weight", "density"],
            "knots_della": ["weight", "density"],
        }.items()
    )
    assert all(name in mergekits.METHOD_PARAM_MAPS for name in OURS)
    assert {entry[0] for entry in entries.values()} == {"weight"}


def test_the_table_has_no_other_method_that_mergekit_has_not_listed():
    assert set(mergekits.METHOD_PARAM_MAPS) == {
        "linear",
        "task_arithmetic",
        "ties",
        "dare_ties",
        "slerp",
    }
    assert mergekits.METHOD_PARAM_MAPS["ties"] == ["weight", "density"]
    for name in ("drn", "della", 1):
        assert name not in mergekits.METHOD_PARAM_MAPS
        with pytest.raises(KeyError):
            mergekits.METHOD_PARAM_MAPS[name]
    with pytest.raises(ValidationError, match="Invalid merge method"):
        ModelGenomeDefinition(models=["a", "b"], merge_method="drn", base_model="c")


def test_a_method_of_another_package(monkeypatch: pytest.MonkeyPatch, models: Path):
    class Other(STAR):
        def __init__(self) -> None:
            super().__init__()
            share = replace(ETA, name="kept", value_type=Annotated[float, Field(ge=0.5, le=2)])
            self.spec = replace(self.spec, name="other", parameters=(share, *self.spec.parameters))

    monkeypatch.setitem(registry._METHODS, "other", Other())
    assert mergekits.METHOD_PARAM_MAPS["other"] == ["weight", "kept", "eta"]
    config = genome(models, "other").genotype_merge_config(np.array([1, -0.1, 0.5] * 2))
    assert settings_of(config, "kept") == [0.5, 0.5]
    assert settings_of(config, "eta") == [50, 50]


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (Annotated[float, Field(gt=0, le=100)], SearchRange(0.1, 100, 100)),
        (Annotated[float, Field(ge=0, lt=1)], SearchRange(0, 0.999, 1)),
        (Annotated[float, Field(gt=0)], SearchRange(0.001, inf, 1)),
        (Annotated[float, Field(ge=-2, le=-1)], SearchRange(-2, -1, 1)),
        (Annotated[float, Field(le=1)], None),
        (Annotated[int, Field(ge=1)], None),
        (Literal["a", "b"], None),
        (float, None),
        (bool, None),
    ],
)
def test_ranges_come_from_types(type_: Any, expected: SearchRange | None):
    assert Parameter("x", type_, ParameterScope.NON_BASE, 1.0, "").search_range() == expected


FLOATS = st.one_of(st.just(0.0), st.floats(-1e9, 1e9), st.floats(-3, 3))


@given(st.sampled_from(sorted(OURS)), st.data())
def test_every_vector_is_a_valid_recipe(models: Path, method: str, data: st.DataObject):
    settings = {
        "layer_granularity": data.draw(st.sampled_from([0, 1, 2])),
        "filters": data.draw(st.sampled_from([None, ["self_attn", "mlp"]])),
        "smooth": data.draw(st.booleans()),
        "normalize": data.draw(st.sampled_from([None, False, True])),
        "allow_negative_weights": data.draw(st.booleans()),
    }
    own = genome(models, method, **settings)
    size = own.initial_genotype().numel()
    vector = np.array(data.draw(st.lists(FLOATS, min_size=size, max_size=size)))
    before = vector.copy()
    config = own.genotype_merge_config(vector)
    require_valid_recipe(config, OURS[method])
    assert (vector == before).all()
    weights = settings_of(config, "weight")
    table = own.genotype_to_param_arrays(vector)
    genes = [gene for name, genes in table.items() if "_weight" in name for gene in genes.tolist()]
    assert sorted(map(abs, weights)) == pytest.approx(sorted(map(abs, genes)))
    for density in settings_of(config, "density"):
        assert 0 < density <= 1


@pytest.mark.parametrize("method", ["drm", "star", "tsvm", "knots_della"])
def test_check_finds_nothing_in_the_first_recipe(models: Path, method: str, tmp_path: Path):
    own = genome(models, method)
    recipe = tmp_path / "best_config.yaml"
    recipe.write_text(own.genotype_merge_config(own.initial_genotype()).to_yaml())
    options = MergeOptions(copy_tokenizer=False)
    found = check(recipe, tmp_path / "out", options).findings
    assert {finding.severity for finding in found} <= {"note"}, found


@pytest.mark.parametrize(
    ("method", "name", "genes", "values"),
    [
        ("star", "eta", [1, 0.4], [100, 40]),
        ("star", "eta", [-0.25, 7], [25, 100]),
        ("star", "eta", [0, 1e-9], [0.1, 0.1]),
        ("tsvm", "share", [1, -2.5], [1, 2.5]),
        ("tsvm", "share", [0, 0.5], [0.001, 0.5]),
        ("drm", "density", [0, -0.5], [0.001, 0.5]),
        ("drm", "density", [1, 2], [1, 1]),
        ("knots_ties", "density", [0, 0.5], [0.001, 0.5]),
        ("knots_della", "density", [0, 1], [0.151, 0.849]),
        ("drm", "weight", [-2, 0], [2, 0]),
    ],
)
def test_what_numbers_stand_for(
    models: Path, method: str, name: str, genes: list[float], values: list[float]
):
    own = genome(models, method)
    place = mergekits.METHOD_PARAM_MAPS[method].index(name)
    genotype = own.initial_genotype()
    genotype[0, :, 0, place] = torch.tensor(genes)
    config = own.genotype_merge_config(genotype)
    assert settings_of(config, name) == pytest.approx(values)


@pytest.mark.parametrize("method", OURS)
def test_without_normalize_weights_have_the_scale_that_lambda_has(method: str):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(12, 10, generator=generator)
    tuned = [base + torch.randn(12, 10, generator=generator) for _ in range(3)]
    group = TensorGroup.from_tensors([base, *tuned], base_index=0)

    def delta(weights: list[float], scale: float) -> torch.Tensor:
        torch.manual_seed(0)
        given = {"weight": weights, "lambda": scale, "normalize": False}
        (merged,) = OURS[method]((group,), parameters=given)
        return merged - base

    scaled = delta([0.35, 0.21, 0.56], 1.0)
    torch.testing.assert_close(scaled, delta([0.5, 0.3, 0.8], 0.7), atol=1e-5, rtol=0)
    assert not torch.allclose(scaled, delta([0.5, 0.3, 0.8], 1.0), atol=1e-2)


@pytest.mark.parametrize("method", ["ties", "linear", "slerp"])
def test_mergekits_own_methods_are_left_alone(models: Path, method: str):
    own = genome(models, method)
    original = ModelGenome.genotype_merge_config.__wrapped__  # type: ignore[attr-defined]
    genotype = own.initial_genotype(random=True) * 4 - 2
    assert own.genotype_merge_config(genotype) == original(own, genotype)


def test_without_a_base(models: Path):
    config = {"models": [str(models / "tuned-1"), str(models / "tuned-2")], "merge_method": "drm"}
    read = EvolMergeConfiguration.model_validate({"genome": config, "tasks": ["mine"]})
    with pytest.raises(MergeError, match=r"^drm merges differences to a base model: set `base_m"):
        ModelGenome(read.genome)


def test_a_vector_of_a_wrong_size(models: Path):
    with pytest.raises(AssertionError):
        genome(models, "iso").genotype_merge_config(np.ones(4))
    with pytest.raises(AssertionError):
        genome(models, "drm").genotype_merge_config(np.ones(2))
    with pytest.raises(mergekits.InvalidGenotypeError):
        genome(models, "drm").genotype_merge_config(np.ones((2, 2)))


WORKER = """
import pickle, sys
genome, vector, options, out = pickle.load(sys.stdin.buffer)
before = {"mergekit_spectral.methods.catalog"} & sys.modules.keys()
from mergekit.merge import run_merge
run_merge(genome.genotype_merge_config(vector), out, options)
print(len(before), *{"ray", "cma", "lm_eval"} & sys.modules.keys())
"""


def test_a_worker_merges_as_this_process_does(models: Path, tmp_path: Path):
    """As a worker of Ray's does, which gets the genome pickled and has imported nothing."""
    adapters = [f"{models / 'base'}+{models / name}" for name in ADAPTERS]
    own = genome(models, "star", models=adapters, layer_granularity=1)
    vector = np.linspace(-1, 2, own.initial_genotype().numel())
    options = MergeOptions(copy_tokenizer=False, quiet=True)
    content = pickle.dumps((own, vector, options, str(tmp_path / "there")))
    assert output_of(WORKER, stdin=content) == "0"
    run_merge(own.genotype_merge_config(vector), str(tmp_path / "here"), options)
    here, there = (checkpoints.tensors(tmp_path / name) for name in ("here", "there"))
    base = checkpoints.tensors(models / "base")
    assert all(torch.equal(here[name], there[name]) for name in base)
    changed = {name for name in base if not torch.equal(here[name], base[name].bfloat16())}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "down_proj"}


@pytest.mark.parametrize("first", ["mergekit.evo.genome", "mergekit_spectral"])
def test_import_orders(first: str):
    code = f"import {first}, sys\nfrom mergekit.evo.genome import METHOD_PARAM_MAPS, ModelGenome\n"
    code += "print('mergekit_spectral.methods' in sys.modules, 'drm' in METHOD_PARAM_MAPS)\n"
    code += "print(hasattr(ModelGenome.genotype_merge_config, '__wrapped__'))"
    assert output_of(code).split() == ["False", "True", "True"]


def test_nobody_imports_genomes_who_does_not_evolve():
    code = "import mergekit.merge, sys; from mergekit.merge_methods import get; get('drm')\n"
    code += "print([name for name in sys.modules if name.startswith('mergekit.evo')])"
    assert output_of(code) == "[]"
