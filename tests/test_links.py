"""Links between documents, and documents that the code names: each has a file and a heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import mergekit_spectral
from mergekit_spectral import spectral

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "recipes/**/*.md")
    for path in ROOT.glob(pattern)
    if "adapters" not in path.parts
)
CODE = ("mergekit_spectral/**/*.py", "benchmarks/**/*.py", "recipes/**/*.yml", "tests/**/*.py")
FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(<?([^)<>\s]+)>?[^)]*\)|\b(?:href|src|srcset)=\"([^\"\s]+)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
NAMED = re.compile(r"\bdocs/[\w/-]+\.md(?:#[\w-]+)?")


def without_code_blocks(text: str) -> str:
    return FENCE.sub("", text)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub and docs/hooks.py give a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-")


def anchors(document: Path) -> list[str]:
    return [anchor(found) for found in HEADING.findall(without_code_blocks(document.read_text()))]


def links(document: Path) -> Iterator[str]:
    """Yield the targets that are not on other servers."""
    text = re.sub(r"`[^`\n]*`", "", without_code_blocks(document.read_text()))
    for markdown, html in LINK.findall(text):
        target = markdown or html
        if not re.match(r"[a-z]+:", target):
            yield target


def problem(target: str, document: Path) -> str:
    """Return what is wrong with a link, or an empty text."""
    name, _, heading = target.partition("#")
    path = document.parent / name if name else document
    if not path.exists():
        return f"{target}: there is no {name}"
    if heading and heading not in anchors(path):
        return f"{target}: no heading of {path.name} has this anchor"
    if heading and anchors(path).count(heading) > 1:
        return f"{target}: several headings of {path.name} have this anchor"
    return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    path = ROOT / document
    assert [found for target in links(path) if (found := problem(target, path))] == []


def test_most_documents_have_links():
    """Or else the pattern does not find them."""
    found = {document: len(list(links(ROOT / document))) for document in DOCUMENTS}
    assert found["docs/index.md"] > 10
    assert sum(found.values()) > 150


def test_documents_that_code_names_are_there():
    files = {path for pattern in CODE for path in ROOT.glob(pattern)} | {ROOT / "CHANGELOG.md"}
    named = {
        (path.relative_to(ROOT).as_posix(), target)
        for path in files - {Path(__file__)}
        for target in NAMED.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    wrong = {pair: found for pair in named if (found := problem(pair[1], ROOT / "README.md"))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Which λ", "which-λ"),
        ("What was run, and what was not", "what-was-run-and-what-was-not"),
        ("KnOTS (`knots`, `knots_M`)", "knots-knots-knots_m"),
        ("`mergekit-yaml` from start to finish", "mergekit-yaml-from-start-to-finish"),
        ("LoRA + LoRA", "lora--lora"),
    ],
)
def test_anchors_are_those_of_github(heading: str, expected: str):
    assert anchor(heading) == expected


def test_a_wrong_link_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# A title\n\n```sh\n# no title\n```\n")
    assert problem("page.md#a-title", page) == problem("#a-title", page) == ""
    assert "no heading" in problem("#no-title", page)
    assert "there is no" in problem("other.md", page)


def test_the_site_has_every_page():
    def pages(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for part in entry.values():
                yield from pages(part)
        elif isinstance(entry, list):
            for part in entry:
                yield from pages(part)

    listed = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    inside = [page for page in listed if not page.startswith("../")]
    on_disk = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(inside) == sorted(on_disk)
    assert all((DOCS / page).is_file() for page in listed)


def test_the_page_of_the_mathematics_has_every_public_name():
    page = (DOCS / "api" / "spectral.md").read_text()
    shown = re.findall(r"^::: mergekit_spectral\.spectral\.(\w+)$", page, re.MULTILINE)
    # An alias of PyTorch's, which the page names.
    assert sorted(shown) == sorted({*spectral.__all__} - {"LinAlgError"})
    assert "`LinAlgError`" in page


def test_the_page_of_the_python_api_has_every_public_name():
    page = (DOCS / "api" / "index.md").read_text()
    shown = re.findall(r"^::: mergekit_spectral\.(\w+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted(mergekit_spectral.__all__)
