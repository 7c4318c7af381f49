"""Types of the values of options."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from mergekit_spectral.command_line.method_names import method_names

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # which is not generic before click 8.3
    ParamType = click.ParamType

_UNITS = {"s": 1, "m": 60, "h": 3600}


class Listed(ParamType):
    """A list with commas between.

    Args:
        each: the type of one value.
    """

    def __init__(self, each: ParamType):
        self.each = each
        self.name = f"{each.name},..."

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        one = self.each.get_metavar(param, ctx)
        return f"{one or self.each.name.upper()},..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any]:
        if isinstance(value, list):
            return value
        return [self.each.convert(part.strip(), param, ctx) for part in value.split(",")]

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        before, comma, last = incomplete.rpartition(",")
        listed = before.split(",")
        found = self.each.shell_complete(ctx, param, last)
        return [
            CompletionItem(f"{before}{comma}{item.value}")
            for item in found
            if item.value not in listed
        ]


class MethodName(ParamType):
    """The name of a merge method. Unknown names are refused later, with a suggestion."""

    name = "method"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        return [CompletionItem(name) for name in method_names() if name.startswith(incomplete)]


class Directions(ParamType):
    """A whole number of directions, or a share of them, as the parameter `rank` has it."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if re.fullmatch(r"[1-9]\d*", str(value)):
            return int(value)
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            self.fail(
                f"{value!r} is not a number of directions such as 512, or a share of them such as "
                "0.25.",
                param,
                ctx,
            )
        return share


class Duration(ParamType):
    """A time such as 90s, 30m or 2h, in seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(value))
        if not found or not float(found[1]):
            self.fail(f"{value!r} is not a time such as 90s, 30m or 2h.", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


class Interval(ParamType):
    """Two positive numbers such as 0.1:3, the smaller one first."""

    name = "low:high"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        try:
            low, high = map(float, str(value).split(":"))
        except ValueError:
            low, high = 0.0, 0.0
        if not 0 < low <= high < float("inf"):
            self.fail(f"{value!r} is not a range of positive numbers such as 0.1:3.", param, ctx)
        return low, high
