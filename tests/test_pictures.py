"""The pictures in the documentation: what is drawn, and that the files and pages are up to date.

Files are compared by their texts and shapes, because other versions of matplotlib may write the
same drawing with other outlines of letters, or in another order of attributes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
import reference
import torch
from reference import relative_error
from torch import Tensor

from docs.pictures import actmat, conflict, demo, draw, drm, iso, knots, lora, star, tsvm
from docs.pictures.canvas import THEMES, WIDE, Canvas, Picture, Theme
from docs.pictures.examples import adapter_updates

NAMES = [module.__name__.rpartition(".")[2] for module in draw.MODULES]
LIGHT, _ = THEMES
MOST_BYTES = 60_000
SMALLEST = 9.5
"""Height in pixels of the smallest font, in a picture that is 400 pixels wide."""


@cache
def pictures() -> dict[str, Picture]:
    """All pictures, by name."""
    return {picture.name: picture for picture in draw.pictures()}


def shapes(svg: str) -> list[tuple[str, list[float]]]:
    """The colors and coordinates of all shapes but letters, in the order of drawing."""
    found = []
    for parent in ElementTree.fromstring(svg).iter():
        for element in parent:
            if element.tag.endswith("}path") and not parent.tag.endswith("}defs"):
                color = re.search(r"#\w{6}", element.get("style", ""))
                numbers = [float(each) for each in re.findall(r"-?[\d.]+", element.get("d", ""))]
                found.append((color.group() if color else "", numbers))
    return found


def texts(svg: str) -> list[str]:
    """The texts, which matplotlib leaves as comments beside the outlines of their letters."""
    return re.findall(r"<!-- (.*?) -->", svg)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_file_is_what_is_drawn(name: str, theme: Theme):
    file = (draw.IMAGES / f"{name}-{theme.name}.svg").read_text(encoding="utf-8")
    svg = pictures()[name].to_svg(theme)
    again = "`python -m docs.pictures.draw` draws it again"
    assert texts(file) == texts(svg), again
    both = zip(shapes(file), shapes(svg), strict=True)
    for (color, numbers), (expected_color, expected) in both:
        assert color == expected_color, again
        assert numbers == pytest.approx(expected, abs=0.02), again
    assert len(file.encode()) < MOST_BYTES


def test_a_drawing_is_the_same_in_each_run():
    svg = pictures()["knots"].to_svg(LIGHT)
    assert svg == pictures()["knots"].to_svg(LIGHT)
    assert "<dc:date>" not in svg


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_legible_and_within_the_picture(name: str):
    picture = pictures()[name]
    canvas = Canvas(picture.height, LIGHT)
    picture.draw(canvas)
    for text in canvas.texts():
        assert text.get_fontsize() * 400 / WIDE >= SMALLEST
        box = text.get_window_extent().transformed(canvas.to_points())
        assert box.xmin >= 4, text.get_text()
        assert box.xmax <= WIDE - 4, text.get_text()
        assert box.ymin >= 2, text.get_text()
        assert box.ymax <= picture.height - 2, text.get_text()


@pytest.mark.parametrize("page", draw.pages(), ids=lambda page: page.name)
def test_pages_show_the_pictures_with_their_present_alternative_texts(page: Path):
    text = page.read_text(encoding="utf-8")
    assert draw.updated(text, pictures().values()) == text


def test_every_method_is_shown():
    shown = {
        name
        for page in draw.pages()
        for _, name in draw.SHOWN.findall(page.read_text(encoding="utf-8"))
    }
    assert {"demo", "conflict", "drm", "knots", "star", "iso", "tsvm", "actmat", "lora"} <= shown


def test_a_page_with_an_old_alternative_text_is_updated():
    picture = Picture("one", "new words", 10.0, lambda canvas: None)
    other = Picture("two", "of another", 10.0, lambda canvas: None).to_markdown("images")
    old = picture.to_markdown("https://a.b/images").replace("new words", "old words")
    page = f"Before.\n\n{other}\nBetween.\n\n{old}\nAfter.\n"
    assert draw.updated(page, [picture]) == page.replace("old words", "new words")


# What is drawn


def test_conflict():
    found = conflict.example()
    A, B = found.updates
    _, coordinates = reference.joint_svd([A, B], 1e-5)
    own, expected = found.space.coordinates, coordinates
    for mine, other in zip(own, expected, strict=True):
        assert relative_error(mine.abs(), other.abs()) < 1e-9
    assert int(found.weights.sum()) == int((A.sign() != B.sign()).sum())
    assert not found.coordinates.any()
    # Of [D_1 D_2], the second row is update 1's own, the third update 2's.
    shapes = [(own[0].norm(dim=1) > 1e-9).tolist(), (own[1].norm(dim=1) > 1e-9).tolist()]
    assert shapes == [[True, True, False], [True, False, True]]
    merges = {
        "ties": reference.elect_and_average([A, B]),
        "knots_ties": reference.knots_ties([A, B]),
    }
    U = found.space.joint.basis
    for method, merged in merges.items():
        for number, row in enumerate((1, 2)):
            part = torch.outer(U[:, row], own[number][row])
            kept = float((merged * part).sum() / part.square().sum())
            assert found.kept[method][number] == pytest.approx(kept)


def test_drm():
    found = drm.example()
    assert relative_error(found.result, reference.drm(found.updates, density=drm.DENSITY)) < 1e-9
    for rows in found.renormalized:
        assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows), dtype=rows.dtype))
    kept = sum(int((own != 0).sum()) for own in found.pruned)
    assert kept == sum(own.numel() for own in found.pruned) // 2 + 1  # and the threshold itself
    assert sum(int(lost.sum()) for lost in found.outvoted) == int(
        (found.scaled[0] * found.scaled[1] < 0).sum()
    )


def test_knots():
    found = knots.example()
    assert relative_error(found.result, reference.knots_ties(found.updates)) < 1e-9


def test_star():
    updates = adapter_updates(star.LAYER, star.WEIGHT)
    for own, update in zip(star.example(), updates, strict=True):
        before = torch.linalg.svdvals(update.to_dense())
        after = torch.linalg.svdvals(reference.truncate(update.to_dense(), star.ETA))
        assert own.before == pytest.approx(before[: len(own.before)].tolist())
        assert own.after == pytest.approx(after[: len(own.after)].tolist())
        assert sum(own.after) == pytest.approx(sum(own.before))


def test_iso():
    found = iso.example()
    updates = [update.to_dense() for update in adapter_updates(iso.LAYER, iso.WEIGHT)]
    before = torch.linalg.svdvals(sum(updates))
    after = torch.linalg.svdvals(reference.iso(updates))
    assert torch.allclose(found.before, before[: len(found.before)])
    assert torch.allclose(found.after, after[: len(found.after)])
    assert torch.allclose(found.shares.sum(0), torch.ones(len(found.before), dtype=torch.float64))
    assert (found.shares >= -1e-9).all()  # the bars of one direction are on top of each other


def test_tsvm():
    found = tsvm.example()
    expected = reference.nearest_orthonormal(torch.cat(found.before, dim=1))
    assert relative_error(found.after, expected) < 1e-9
    overlap = float(found.before[0][:, 0] @ found.before[1][:, 0])
    assert math.cos(math.radians(found.angle)) == pytest.approx(abs(overlap))
    expected = reference.nearest_orthonormal(found.two)
    assert relative_error(found.two_after, expected) < 1e-9


@pytest.mark.parametrize(
    ("method", "definition"),
    [
        ("mean", lambda updates: sum(updates) / len(updates)),
        ("sum", sum),
        ("actmat", reference.actmat),
    ],
)
def test_actmat(method: str, definition: Callable[[list[Tensor]], Tensor]):
    found = actmat.example()
    strengths = found.left.T @ definition(found.updates) @ found.right
    assert torch.allclose(strengths, found.merged[method].diag(), atol=1e-9)


def test_lora():
    files = lora.example()
    width, inner, layers, keys = 4096, 14336, 32, 1024
    linear = [(width, width)] * 2 + [(keys, width)] * 2 + [(inner, width)] * 3
    ranks = sum(lora.RANK * (rows + columns) for rows, columns in linear)
    assert files.adapter == pytest.approx(2 * layers * ranks, rel=2e-3)  # and a header
    weights = layers * (sum(rows * columns for rows, columns in linear) + 2 * width)
    parameters = weights + 2 * 128256 * width + width
    assert files.merged == 2 * parameters
    assert files.written("drm") == files.merged
    assert files.written("ties") == pytest.approx((lora.COUNT + 1) * files.merged, rel=1e-5)


def test_demo_reads_what_the_readme_says():
    rows = {row.name: row.mean for row in demo.read_table()}
    text = demo.TABLE.read_text(encoding="utf-8")
    methods = ("ties", "knots_ties", "drm", "star", "iso", "tsvm", "actmat")
    for name in methods:
        assert re.search(rf"^\| `{name}` \|.*\| {rows[name]}% \|", text, re.MULTILINE)
    assert set(rows) == {
        "base",
        "tuned",
        *methods,
        *(f"adapter {name}" for name in ("numbers", "plurals", "sentiment")),
    }
