"""What all drawings are made of: colors, texts, matrices and bars, and how they become SVG.

Lengths are in points. A drawing is 288 points wide, so on a phone, 400 pixels wide, a point takes
1.4 pixels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.transforms import Transform
from torch import Tensor

from mergekit_spectral.reporting.plots import COLORS, WIDTH
from mergekit_spectral.spectral import TIE

INCH = 72
WIDE = INCH * WIDTH
MARGIN = 10.0
RIGHT = WIDE - MARGIN
TITLE, TEXT, SMALL = 8.8, 7.8, 7.2
"""Sizes of fonts. The smallest is 10 pixels high if the drawing is 400 pixels wide."""
GAP = 0.5
"""Space between the cells of a matrix."""
SHADES = 9
"""Number of colors of each sign, so that files are small and do not change with rounding."""
WEAKEST = 0.18
"""How far the weakest entries' color is from that of zeros, toward that of the largest entries."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Theme:
    """The colors of a drawing, for a light or a dark page.

    Attributes:
        name: light or dark.
        page: background. It is painted, so that a drawing is legible on any page.
        ink: texts.
        faded: texts and lines of less importance.
        cell: entries that are zero, and empty bars.
        positive: the largest entries.
        negative: the smallest entries.
        inputs: what belongs to the first, second and third input.
        accent: what a merge kept or won.
    """

    name: str
    page: str
    ink: str
    faded: str
    cell: str
    positive: str
    negative: str
    inputs: tuple[str, str, str]
    accent: str


BLUE, _, _, PURPLE, ORANGE, SKY = COLORS[:6]
# The pages are GitHub's. Vermilion and green are the plots', but so dark or so bright that texts on
# them are legible.
THEMES = (
    Theme(
        name="light",
        page="#ffffff",
        ink="#1f2328",
        faded="#59636e",
        cell="#eceff2",
        positive="#c45300",
        negative=BLUE,
        inputs=(PURPLE, ORANGE, SKY),
        accent="#008060",
    ),
    Theme(
        name="dark",
        page="#0d1117",
        ink="#f0f6fc",
        faded="#9ea7b3",
        cell="#262c36",
        positive="#ff8a3d",
        negative=SKY,
        inputs=(PURPLE, ORANGE, SKY),
        accent="#2fbf8f",
    ),
)


class Canvas:
    """A drawing in one theme. The origin is at the top left.

    Args:
        height: in points.
        theme: its colors.
    """

    def __init__(self, height: float, theme: Theme):
        self.theme = theme
        self._figure = Figure(figsize=(WIDE / INCH, height / INCH), facecolor=theme.page)
        self._panel = self._figure.add_axes((0, 0, 1, 1))
        self._panel.set(xlim=(0, WIDE), ylim=(height, 0))
        self._panel.set_axis_off()

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = TEXT,
        color: str | None = None,
        align: str = "left",
        bold: bool = False,
    ) -> None:
        """Write lines of text.

        Args:
            x: the left end, the right end or the middle, as `align` says.
            y: the middle of the first line.
            text: one or more lines.
            size: of the font.
            color: the theme's ink by default.
            align: left, right or center.
            bold: whether the font is bold.
        """
        for number, line in enumerate(text.split("\n")):
            self._panel.text(
                x,
                y + 1.3 * size * number,
                line,
                size=size,
                color=color or self.theme.ink,
                ha=align,
                va="center_baseline",
                weight="bold" if bold else "normal",
            )

    def title(self, y: float, text: str) -> None:
        """Write a line in bold at the left margin."""
        self.text(MARGIN, y, text, TITLE, bold=True)

    def signs(self, y: float) -> None:
        """Explain the colors of entries, at the right margin."""
        for x, color, sign in ((-31, self.theme.positive, "+"), (-12, self.theme.negative, "−")):
            self.box(RIGHT + x - 5, y - 3, 6, 6, color)
            self.text(RIGHT + x + 4, y, sign, SMALL, self.theme.faded)

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Fill a rectangle."""
        self._fill([_rectangle(x, y, width, height)], color)

    def frame(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Draw the outline of a rectangle."""
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
        self.line(corners, color, 0.8)

    def line(
        self,
        points: Sequence[Point],
        color: str | None = None,
        width: float = 0.8,
    ) -> None:
        """Draw a line through points."""
        x, y = zip(*points, strict=True)
        color = color or self.theme.faded
        line = Line2D(x, y, color=color, linewidth=width, clip_on=False)
        self._panel.add_line(line)

    def arrow(
        self,
        start: Point,
        end: Point,
        color: str,
        width: float = 1.2,
        head: float = 8,
    ) -> None:
        """Draw an arrow."""
        self._panel.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=head,
                shrinkA=0,
                shrinkB=0,
                linewidth=width,
                color=color,
                clip_on=False,
            )
        )

    def matrix(
        self, x: float, y: float, values: Tensor, cell: float, largest: float | None = None
    ) -> None:
        """Draw a matrix, a cell for each entry, colored by its sign and size.

        Args:
            x: the left end.
            y: the upper end.
            values: [rows, columns].
            cell: the size of a cell.
            largest: the magnitude with the strongest color; by default the largest one.
        """
        largest = largest or float(values.abs().max())
        shapes: dict[str, list[Outline]] = defaultdict(list)
        for row, entries in enumerate(values.tolist()):
            for column, value in enumerate(entries):
                color = self._shade(value / largest)
                corner = x + column * cell + GAP, y + row * cell + GAP
                shapes[color].append(_rectangle(*corner, cell - 2 * GAP, cell - 2 * GAP))
        for color in sorted(shapes):
            self._fill(shapes[color], color)

    def marks(self, x: float, y: float, marked: Tensor, cell: float, color: str) -> None:
        """Draw a matrix of booleans: cells that are true in a color, the others empty."""
        for value, filling in ((False, self.theme.cell), (True, color)):
            cells = [
                _rectangle(x + column * cell + GAP, y + row * cell + GAP, *[cell - 2 * GAP] * 2)
                for row, column in (marked == value).nonzero().tolist()
            ]
            if cells:
                self._fill(cells, filling)

    def crosses(self, x: float, y: float, marked: Tensor, cell: float) -> None:
        """Cross out entries of a matrix."""
        for row, column in marked.nonzero().tolist():
            left, top = x + (column + 0.28) * cell, y + (row + 0.28) * cell
            right, bottom = left + 0.44 * cell, top + 0.44 * cell
            self.line([(left, top), (right, bottom)], self.theme.ink)
            self.line([(left, bottom), (right, top)], self.theme.ink)

    def _shade(self, value: float) -> str:
        """Return the color of an entry, relative to the largest one."""
        full = self.theme.positive if value > 0 else self.theme.negative
        level = 0.0
        if abs(value) > TIE:  # weak entries do not look like zeros
            level = WEAKEST + (1 - WEAKEST) * round(min(1.0, abs(value)) ** 0.75 * SHADES) / SHADES
        parts = zip(to_rgb(self.theme.cell), to_rgb(full), strict=True)
        red, green, blue = ((1 - level) * empty + level * strong for empty, strong in parts)
        return to_hex((red, green, blue))

    def _fill(self, outlines: Sequence[Outline], color: str) -> None:
        shape = Outline.make_compound_path(*outlines)
        self._panel.add_patch(PathPatch(shape, facecolor=color, linewidth=0, clip_on=False))

    def texts(self) -> list[Text]:
        """Return all lines of text."""
        return list(self._panel.texts)

    def to_points(self) -> Transform:
        """Return the transformation of positions on the screen to points of the drawing."""
        return self._panel.transData.inverted()

    def to_svg(self) -> str:
        """Return the drawing as SVG, which is the same in each run."""
        # Texts are outlines: a reader's fonts have other widths, or lack letters such as ᵀ.
        settings: Any = {"svg.fonttype": "path", "svg.hashsalt": "mergekit-spectral"}
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with matplotlib.rc_context(settings), StringIO() as file:
            self._figure.savefig(file, format="svg", metadata=metadata)
            text = file.getvalue()
        return _compact(text)


@dataclass(frozen=True)
class Picture:
    """A drawing for the documentation.

    Attributes:
        name: of its files, without theme and suffix.
        alt: what is seen, for readers who do not see it.
        height: in points.
        draw: draws it.
    """

    name: str
    alt: str
    height: float
    draw: Callable[[Canvas], None]

    def to_svg(self, theme: Theme) -> str:
        """Return the drawing as SVG."""
        canvas = Canvas(self.height, theme)
        self.draw(canvas)
        return canvas.to_svg()

    def to_markdown(self, folder: str) -> str:
        """Return the lines that show it in a Markdown file.

        Args:
            folder: the images', as the file names it.
        """
        light, dark = (f"{folder}/{self.name}-{theme.name}.svg" for theme in THEMES)
        return (
            "<picture>\n"
            f'  <source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
            f'  <img src="{light}" width="{SHOWN}" alt="{self.alt}">\n'
            "</picture>\n"
        )


SHOWN = 460
"""Width in pixels of drawings on wide pages."""

_NUMBER = r"(-?[\d.]+)"
_RECTANGLE = re.compile(
    rf"M {_NUMBER} {_NUMBER}\s+L {_NUMBER} \2\s+L \3 {_NUMBER}\s+L \1 \4\s+(?:L \1 \2\s+)?z\s+"
)
_GLYPH = re.compile(r"DejaVuSans-(Bold-)?(?:Oblique-)?(\w+)")
_PLACED = re.compile(r'xlink:href="(#\w+)" transform="translate\((-?\d+)(?:\.\d+)? 0\)"')


def _compact(svg: str) -> str:
    """Return the same drawing in a file of half the size."""
    svg = _RECTANGLE.sub(r"M\1 \2H\3V\4H\1z", svg)
    svg = _GLYPH.sub(lambda glyph: f"{'b' if glyph[1] else 'g'}{glyph[2]}", svg)
    svg = _PLACED.sub(r'xlink:href="\1" x="\2"', svg)
    svg = re.sub(r"\s*\n([LQCMz]) ?", r"\1", svg)
    svg = re.sub(r'<g id="\w+">\s*(<path [^>]*/>)\s*</g>', r"\1", svg)
    return "".join(f"{line.strip()}\n" for line in svg.splitlines())


def _rectangle(x: float, y: float, width: float, height: float) -> Outline:
    right, bottom = x + width, y + height
    return Outline([(x, y), (right, y), (right, bottom), (x, bottom), (x, y)], closed=True)
