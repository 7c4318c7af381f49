"""Files that other programs read: YAML, TOML and JSON parse, and follow their published schemas."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
RECIPE = re.compile(r"\brecipes/[\w/-]+\.yml")
PATTERNS = ("*", ".github/**/*", "recipes/**/*", "benchmarks/**/*", "tests/**/*")
SCHEMAS = {
    "vendor.github-workflows": ".github/workflows/*.yml",
    "vendor.github-issue-forms": ".github/ISSUE_TEMPLATE/*.yml",
    "vendor.citation-file-format": "CITATION.cff",
}


def found(*suffixes: str) -> list[str]:
    """Paths of the repository's own files with one of these suffixes."""
    paths = {path for pattern in PATTERNS for path in ROOT.glob(pattern)}
    return sorted(path.relative_to(ROOT).as_posix() for path in paths if path.suffix in suffixes)


@pytest.mark.parametrize("path", found(".yml", ".yaml", ".cff"))
def test_yaml(path: str):
    assert isinstance(yaml.safe_load((ROOT / path).read_text()), dict)


@pytest.mark.parametrize("path", found(".toml"))
def test_toml(path: str):
    assert tomllib.loads((ROOT / path).read_text())


@pytest.mark.parametrize("path", found(".json"))
def test_json(path: str):
    assert json.loads((ROOT / path).read_text())


@pytest.mark.parametrize("schema", SCHEMAS)
def test_schema(schema: str):
    files = sorted(map(str, ROOT.glob(SCHEMAS[schema])))
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_recipes_that_are_named_exist():
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.*ml")]
    files += [ROOT / "recipes" / "README.md", *(ROOT / "mergekit_spectral").rglob("*.py")]
    named = {path for file in files for path in RECIPE.findall(file.read_text())}
    assert named
    assert {path for path in named if not (ROOT / path).is_file()} == set()


def test_declared_pythons_are_those_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    declared = [c.rpartition(" ")[2] for c in project["classifiers"] if c.startswith(prefix)]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == declared
    assert project["requires-python"] == f">={declared[0]}"
