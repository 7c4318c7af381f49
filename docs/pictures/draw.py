"""Draw the pictures of the documentation, and bring the pages that show them up to date.

    python -m docs.pictures.draw

Writes each picture to docs/images, once for light and once for dark pages. The numbers in the
pictures are computed from the adapters in recipes/, the demo's table and small made-up matrices.
So the alternative texts in the pages, which name some of them, are written too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from docs.pictures import actmat, conflict, demo, drm, iso, knots, lora, star, tsvm
from docs.pictures.canvas import THEMES, Picture
from docs.pictures.examples import ROOT

IMAGES = ROOT / "docs" / "images"
MODULES = (conflict, drm, knots, star, iso, tsvm, actmat, lora, demo)
SHOWN = re.compile(
    r'<picture>\s(?:(?!</picture>).)*src="(.*?)/(\w+)-light\.svg".*?</picture>\n', re.S
)


def pictures() -> list[Picture]:
    """Return all pictures."""
    return [module.picture() for module in MODULES]


def pages() -> list[Path]:
    """Return the pages that may show pictures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def updated(page: str, drawn: Iterable[Picture]) -> str:
    """Return the text of a page, with the lines that show pictures as they should be."""
    by_name = {picture.name: picture for picture in drawn}

    def lines(shown: re.Match[str]) -> str:
        return by_name[shown[2]].to_markdown(shown[1]) if shown[2] in by_name else shown[0]

    return SHOWN.sub(lines, page)


def main() -> None:
    """Write the files."""
    drawn = pictures()
    for picture in drawn:
        for theme in THEMES:
            path = IMAGES / f"{picture.name}-{theme.name}.svg"
            path.write_text(picture.to_svg(theme), encoding="utf-8")
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := updated(text, drawn)) != text:
            page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
