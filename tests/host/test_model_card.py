"""What the card of a merged model says, so that others can repeat the merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from mergekit import card
from mergekit.config import MergeConfiguration
from mergekit.merge_methods import registered_methods

from mergekit_spectral import __version__
from mergekit_spectral.host.model_card import (
    cards_that_others_can_use,
    complete_card,
    describe_method,
    portable_recipe,
    repeat,
    tuned_on,
)
from mergekit_spectral.host.recipe_check import find_method
from mergekit_spectral.methods import DRM, SpectralMethod

COMMIT = "f2b0cdd8f3a0c3a8a2a8d2f4b8f9c0d1e2f3a4b5"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("base", "a/checkpoint", "b/checkpoint", f"hub/models--lab--zephyr/snapshots/{COMMIT}")
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def recipe(base: Any, *inputs: Any, **parameters: Any) -> str:
    models = [{"model": str(each), "parameters": {"weight": 1.0}} for each in inputs]
    return yaml.safe_dump(
        {
            "merge_method": "drm",
            "base_model": str(base),
            "models": models,
            "parameters": {"density": 0.5, **parameters},
            "tokenizer_source": str(base),
        },
        sort_keys=False,
    )


def written(text: str, of: str | None = None) -> str:
    """Return the card of a recipe with a text, which may be another one than the recipe's."""
    config = MergeConfiguration.model_validate(yaml.safe_load(of or text))
    method = find_method(config.merge_method)
    assert isinstance(method, SpectralMethod)
    with cards_that_others_can_use():
        return complete_card(card.generate_card, method, config, text, "merged")


def test_paths_of_this_machine_become_names(folder: Path):
    base = folder / "base"
    text = recipe(base, f"{base}+{folder / 'a/checkpoint'}", f"{base}+{folder / 'b/checkpoint/'}")
    found = portable_recipe("# Mine.\n" + text)
    assert found == "# Mine.\n" + recipe("./base", "./base+./a/checkpoint", "./base+./b/checkpoint")


def test_a_folder_of_the_hubs_cache_becomes_the_model_and_its_commit(folder: Path):
    snapshot = folder / f"hub/models--lab--zephyr/snapshots/{COMMIT}"
    found = yaml.safe_load(portable_recipe(recipe("org/base@main", snapshot)))
    assert found["models"][0]["model"] == f"lab/zephyr@{COMMIT}"
    MergeConfiguration.model_validate(found)


def test_other_names_stay(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    text = recipe("lab/base@main", "lab/base+./a/checkpoint", "b/checkpoint", "/no/such/folder")
    assert portable_recipe(text) == text
    # A relative path is not taken for one that was shortened.
    both = portable_recipe(recipe("base", folder / "hub/../a/checkpoint", "b/checkpoint"))
    assert yaml.safe_load(both)["models"][0]["model"] == "./a/checkpoint"


def test_what_the_card_says(folder: Path):
    text = written(recipe(folder / "base", folder / "a/checkpoint", "lab/tuned"))
    assert str(folder) not in text
    assert "pip install mergekit==0.1.5\n" in text
    assert f"pip install .  # in a clone of mergekit-spectral {__version__}, " in text
    assert "mergekit-yaml recipe.yml merged/" in text
    assert "| `density` | 0.5 |" in text
    assert "| `lambda` | 1 (default) |" in text
    assert "| `weight` | see the configuration |" in text
    assert DRM().spec.reference_url in text
    assert "local folders, not models of the Hugging Face Hub: `./base`, `./checkpoint`." in text
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["base_model"] == ["lab/tuned"]
    assert "[./" not in text  # local folders are no links
    repeated = yaml.safe_load(text.split("```yaml")[1].split("```")[0])
    MergeConfiguration.model_validate(repeated)


def test_models_are_in_the_recipes_order():
    names = [f"lab/model-{number}" for number in range(8)]
    text = written(recipe("lab/base", *names))
    listed = text.split("### Models Merged")[1].split("###")[0]
    assert [line.split("]")[0] for line in listed.splitlines() if "* [" in line] == [
        f"* [{name}" for name in names
    ]


def test_what_it_was_tuned_on():
    tuned = "# Tuned by mergekit-spectral on chat (40) and\n#   code (20): `lambda` = 2.\n\n"
    text = recipe("lab/base", "lab/one")
    assert "### Tuning\n\nTuned by mergekit-spectral on chat (40) and code (20): `lambda` = 2." in (
        written(tuned + text)
    )
    assert "### Tuning" not in written(text)
    assert tuned_on("# Mine.\r\n\r\n" + tuned.replace("\n", "\r\n") + text)


@pytest.mark.parametrize(
    "value",
    [[0.1, 0.2], [{"filter": "mlp", "value": 0.3}, {"value": 0.5}]],
    ids=["gradient", "filter"],
)
def test_a_value_that_differs_is_in_the_configuration(value: Any):
    config = MergeConfiguration.model_validate(
        yaml.safe_load(recipe("lab/base", "lab/one", density=value, normalize=False))
    )
    text = describe_method(DRM(), config)
    assert "| `density` | see the configuration |" in text
    assert "| `normalize` | false |" in text


def test_every_method_has_a_card():
    ours = [method for method in registered_methods() if isinstance(method, SpectralMethod)]
    assert len(ours) > 10
    for method in ours:
        text = recipe("lab/base", "lab/one").replace("drm", method.spec.name)
        assert f"`{method.spec.name}` is not part of mergekit" in written(text)


def test_a_method_of_another_package_names_it(monkeypatch: pytest.MonkeyPatch):
    class Foreign(DRM):
        __module__ = "click.methods"  # a package that is surely installed

    assert " click==" in repeat(Foreign(), "mergekit-yaml recipe.yml merged/")


def test_aliases_and_merge_keys_are_kept(folder: Path):
    text = "models:\n- &a {{model: {0}}}\n- {{<<: *a, parameters: {{weight: 1}}}}\n"
    assert portable_recipe(text.format(folder / "base")) == text.format("./base")


@pytest.mark.parametrize("text", ["not: [a recipe", "no recipe", "merge_method: drm"])
def test_any_text_may_be_given_with_a_recipe(text: str):
    assert f"```yaml\n{text}\n```" in written(text, recipe("lab/base", "lab/one"))
