"""The repository's recipes have no faults."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.planted_faults import checked
from support.stand_ins import StandIns

from mergekit_spectral.checking.checks import check

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*.yml"))


@pytest.mark.parametrize("path", RECIPES)
def test_our_recipes_pass(path: str):
    report = check(ROOT / path)
    assert not report.failed
    elsewhere = "is neither a local folder nor downloaded"
    others = [f for f in report.findings if elsewhere not in f.message and f.severity != "note"]
    assert others == []


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("stand-ins"))


@pytest.mark.parametrize("path", [path for path in RECIPES if "smollm2" not in path])
def test_our_recipes_pass_with_their_models(path: str, stand_ins: StandIns, tmp_path: Path):
    recipe = stand_ins.applied_to(yaml.safe_load((ROOT / path).read_text()))
    report = checked(recipe, tmp_path)
    serious = [finding.message for finding in report.findings if finding.severity != "note"]
    # Classifiers have a head, and their recipes say that it is left out.
    heads = len(recipe["models"]) if "classifiers" in path else 0
    assert len(serious) == heads
    assert all("score.weight" in message and "leaves it out" in message for message in serious)
    assert report.costs is not None
