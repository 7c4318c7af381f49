"""Pages: one HTML file each, which needs no other file and no network."""

from __future__ import annotations

import base64
import re
from typing import Any

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape

from mergekit_spectral.reporting.plots import DARK, Plot


def fill_template(room: str, **values: Any) -> str:
    """Return the page of a room.

    Args:
        room: name of the subpackage, whose template is ``page.html.jinja``. It extends
            ``reporting/page.html.jinja``.
        values: by their names in the template.
    """
    rooms = ("reporting", room)
    environment = Environment(
        loader=PrefixLoader(
            {name: PackageLoader(f"mergekit_spectral.{name}", "") for name in rooms}
        ),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"code": _code, "breakable": _breakable}
    template = environment.get_template(f"{room}/page.html.jinja")
    return template.render(dark=DARK, **values)


def embedded(plot: Plot) -> dict[str, str]:
    """Return a plot for the templates, with its images in base64."""
    images = {"light": plot.light, "dark": plot.dark}
    encoded = {name: base64.b64encode(image).decode() for name, image in images.items()}
    return {"title": plot.title, "text": plot.text, **encoded}


def _code(text: str) -> Markup:
    """Convert text in backticks to HTML code elements."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def _breakable(name: str) -> Markup:
    """Let a name break after its separators."""
    parts = re.findall(r"[^/_-]+[/_-]*|[/_-]+", name)
    return Markup("<wbr>").join(parts)
