"""The pages of `inspect` and `tune` in a real browser: wide, narrow, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from playwright.sync_api import Browser, Page, sync_playwright
from support.checkpoints import Family
from support.inspections import dense, inspection
from support.matrices import gaussian
from support.recipe_builders import recipe as plain_recipe
from support.tunings import candidates, tuning

from mergekit_spectral.command_line.main import main
from mergekit_spectral.inspecting.page import write_page
from mergekit_spectral.inspecting.plots import draw_inspection
from mergekit_spectral.inspecting.verdict import decide
from mergekit_spectral.tuning.page import tuning_page

pytestmark = pytest.mark.browser

LONG = [
    "hoffman-lab/KnOTS-Llama3_8B_lora_R16_snli",
    "yophis/DRM-Llama-3.1-8B-banking77-and-some-more-tasks",
    *(f"Lots-of-LoRAs/Mistral-7B-Instruct-v0.2-4b-r16-task{number}" for number in range(100, 106)),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "the page is looked at in Chromium; install it, or deselect `-m 'not browser'`"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page(gentle_llama: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three fine-tunes."""
    folder = tmp_path_factory.mktemp("page")
    recipe = folder / "recipe.yml"
    recipe.write_text(yaml.safe_dump(plain_recipe("drm", gentle_llama)))
    result = CliRunner().invoke(main, ["inspect", str(recipe), "--out", str(folder / "report")])
    assert result.exit_code == 0, result.output
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of eight inputs with long names, of which the last is a copy."""
    updates = gaussian((40, 56), len(LONG))
    found = inspection(dense(*updates[:-1], updates[0]), base_norm=1e4)
    found = replace(found, inputs=tuple(LONG))
    folder = tmp_path_factory.mktemp("crowded")
    plots = draw_inspection(found)
    write_page(
        found, decide(found), "merge_method: tsvm\n" + "# long " * 40, plots, folder / "x.html"
    )
    return folder / "x.html"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a tuning with many data sets, candidates and inputs, all with long names."""
    sets = [f"{name.replace('/', '_')}_questions" for name in LONG]
    found = tuning(sets, candidates(12), LONG, texts=2)
    path = tmp_path_factory.mktemp("tuned") / "index.html"
    path.write_text(tuning_page(found, "merge_method: tsvm\n" + "# long " * 40), encoding="utf-8")
    return path


def opened(browser: Browser, page: Path, width: int, scheme: str = "light") -> Page:
    tab = browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    tab.goto(page.as_uri())
    return tab


@pytest.mark.parametrize("width", [1280, 400])
def test_renders_without_an_error(width: int, browser: Browser, page: Path):
    reported: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 900})
    tab.on("console", lambda message: reported.append(message.text))
    tab.on("pageerror", lambda error: reported.append(str(error)))
    tab.on("requestfailed", lambda request: reported.append(request.url))
    tab.goto(page.as_uri())
    assert reported == []
    pictures = tab.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(pictures) == 13
    assert min(pictures) > 500
    assert tab.title() == "recipe.yml: 3 inputs of drm"
    assert tab.text_content("h1") == decision(page)
    # The three plots behind the verdict are shown, the others are folded away.
    shown = "[...document.images].filter(image => image.checkVisibility()).length"
    assert tab.evaluate(shown) == 3
    tab.close()


def decision(page: Path) -> str:
    """Return the headline in the report beside a page, as the page shows it."""
    report = yaml.safe_load((page.parent / "report.json").read_text())
    return str(report["verdict"]["headline"]).replace("`", "")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("which", ["page", "crowded", "tuned"])
def test_nothing_is_cut_off(
    which: str, width: int, browser: Browser, request: pytest.FixtureRequest
):
    tab = opened(browser, request.getfixturevalue(which), width)
    tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    # Only tables and the recipe scroll by themselves. Plots are as wide as they are legible.
    boxes = tab.evaluate(
        "[...document.images].map(i => [i.getBoundingClientRect().left, "
        "i.getBoundingClientRect().right, i.getBoundingClientRect().width])"
    )
    for left, right, wide in boxes:
        assert left >= 0
        assert right <= width
        assert wide >= 290
    tab.close()


@pytest.mark.parametrize("which", ["page", "tuned"])
def test_dark_mode(which: str, browser: Browser, request: pytest.FixtureRequest):
    page, colors = request.getfixturevalue(which), {}
    for scheme in ("light", "dark"):
        tab = opened(browser, page, 1280, scheme)
        colors[scheme] = tab.evaluate(
            "[getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.body).color, document.images[0].currentSrc.slice(-60)]"
        )
        tab.close()
    assert colors["light"][0] == "rgb(255, 255, 255)"
    assert colors["dark"][0] == "rgb(21, 24, 28)"
    assert all(light != dark for light, dark in zip(*colors.values(), strict=True))


@pytest.mark.parametrize("allowed", [True, False])
def test_the_recipe_is_copied(allowed: bool, browser: Browser, page: Path):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    tab = context.new_page()
    if not allowed:
        tab.add_init_script("navigator.clipboard.writeText = () => Promise.reject(Error('no'))")
    tab.goto(page.as_uri())
    tab.click("#copy")
    tab.wait_for_function("document.getElementById('copy').textContent == 'Copied'")
    recipe = (page.parent / "recommended.yml").read_text()
    assert tab.evaluate("navigator.clipboard.readText()").strip() == recipe.strip()
    context.close()
