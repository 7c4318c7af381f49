"""The options that benchmarks share, and their lists, as in `--inputs 2,4,8`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click

from mergekit_spectral.command_line.option_types import Directions, Listed, ParamType

F = TypeVar("F", bound=Callable[..., Any])


class Shape(ParamType):
    """Rows and columns, as in `4096x14336`."""

    name = "rowsxcolumns"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        try:
            rows, columns = map(int, value.lower().split("x"))
        except ValueError:
            self.fail(f"{value!r} is not a shape such as 4096x14336", param, ctx)
        if rows < 1 or columns < 1:
            self.fail(f"{value!r} has no entries", param, ctx)
        return rows, columns


class Method(ParamType):
    """A merge method that mergekit knows, ours included."""

    name = "method"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        # Late, because it imports torch, which takes seconds that `--help` need not.
        import mergekit.merge_methods as mm

        known = {method.spec.name for method in mm.registered_methods()}
        if value not in known:
            self.fail(f"there is no merge method {value!r} among {', '.join(sorted(known))}")
        return str(value)


class Kept(Directions):
    """How many joint directions are kept: a number, a share such as 0.25, or `all`."""

    name = "directions"

    def convert(  # type: ignore[override]  # None means all
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        if value == "all":
            return None
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(
                f"{value!r} is not a number of directions, a share such as 0.25, or all", param, ctx
            )


POSITIVE = click.IntRange(min=1)
DTYPES = click.Choice(["float32", "bfloat16", "float16"])
DEVICES = click.Choice(["cpu", "cuda", "mps"])
SETS = ("tiny", "small", "llama-8b", "mistral-7b")
DIRECTIONS = click.Choice(["horizontal", "vertical", "auto"])


def methods_option(default: str) -> Callable[[F], F]:
    """Make the option that names the methods."""
    return click.option(
        "--methods",
        type=Listed(Method()),
        default=default,
        show_default=True,
        help="By their names in recipes.",
    )


direction_option = click.option(
    "--direction",
    type=DIRECTIONS,
    default="horizontal",
    show_default=True,
    help="For the methods that have that parameter.",
)
runs_option = click.option(
    "--runs",
    type=POSITIVE,
    default=3,
    show_default=True,
    help="Timed runs of each case, after one that is not timed; their median counts.",
)
json_option = click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write figures."
)
plot_option = click.option(
    "--plot",
    "plots",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write PNG files here; needs the extra `report`.",
)


def require_matplotlib(plots: Path | None) -> None:
    """Raise `click.ClickException` if plots are asked for and cannot be drawn."""
    if plots and find_spec("matplotlib") is None:
        raise click.ClickException("plots need matplotlib: pip install -e '.[report]'")
