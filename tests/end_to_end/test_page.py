"""The page of `mergekit-spectral inspect` in a real browser, wide and narrow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from playwright.sync_api import Browser, sync_playwright
from support.checkpoints import Family
from support.recipe_builders import recipe as plain_recipe

from mergekit_spectral.command_line.main import main

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "the page is looked at in Chromium; install it, or deselect `-m 'not browser'`"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(llama: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    recipe = folder / "recipe.yml"
    recipe.write_text(yaml.safe_dump(plain_recipe("drm", llama)))
    result = CliRunner().invoke(main, ["inspect", str(recipe), "--out", str(folder / "report")])
    assert result.exit_code == 0, result.output
    return folder / "report" / "index.html"


@pytest.mark.parametrize("width", [1280, 390])
def test_renders_without_an_error(width: int, browser: Browser, page: Path):
    told: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 900})
    tab.on("console", lambda message: told.append(message.text))
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.on("requestfailed", lambda request: told.append(request.url))
    tab.goto(page.as_uri())
    assert told == []
    pictures = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(pictures) == 10
    assert min(pictures) > 500
    # What is too wide scrolls by itself, not with the page.
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    boxes = tab.evaluate("[...document.images].map(image => image.getBoundingClientRect().width)")
    assert min(boxes) >= min(width, 500)
    assert tab.title() == "recipe.yml: 3 inputs of drm"
    tab.close()
