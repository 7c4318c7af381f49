"""The plain definitions that the benchmarks time are the definitions."""

from __future__ import annotations

import pytest
import reference
from reference import relative_error
from support.matrices import gaussian

from benchmarks import plain

DEFINITIONS = {"drm": reference.drm, "knots_ties": reference.knots_ties}


@pytest.mark.parametrize("method", DEFINITIONS)
@pytest.mark.parametrize("direction", ["horizontal", "vertical", "auto"])
def test_joint_methods(method: str, direction: str):
    deltas = gaussian((12, 9), 3)
    actual = plain.DEFINITIONS[method](deltas, direction)
    expected = DEFINITIONS[method](deltas, density=plain.DENSITY, direction=direction)
    assert relative_error(actual, expected) < 1e-9


def test_star():
    deltas = gaussian((12, 9), 3)
    actual = plain.star(deltas, "horizontal")
    assert relative_error(actual, reference.star(deltas, eta=plain.ETA)) < 1e-9
