"""Values of options."""

from __future__ import annotations

import click
import pytest

from mergekit_spectral.command_line.option_types import Directions, Listed


def test_directions_are_numbers_or_shares():
    found = Listed(Directions()).convert("512, 0.25,1,1.0", None, None)
    assert [(type(value), value) for value in found] == [
        (int, 512),
        (float, 0.25),
        (int, 1),
        (float, 1.0),
    ]


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "512.0", "nan", "inf", "half", ""])
def test_other_numbers_are_refused(value: str):
    with pytest.raises(click.BadParameter, match=r"512, or a share of them such as 0\.25"):
        Directions().convert(value, None, None)
