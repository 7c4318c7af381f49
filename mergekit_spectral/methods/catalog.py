"""List the methods of this package, and those of other packages."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points

from mergekit.merge_methods.base import MergeMethod
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

from mergekit_spectral.methods.actmat import ACTMat
from mergekit_spectral.methods.base import SpectralMethod
from mergekit_spectral.methods.drm import DRM
from mergekit_spectral.methods.iso import Iso
from mergekit_spectral.methods.knots import KnOTS
from mergekit_spectral.methods.star import STAR
from mergekit_spectral.methods.tsvm import TSVM

LOG = logging.getLogger(__name__)

ENTRY_POINTS = "mergekit_spectral.methods"
"""The group in which a package names its methods: classes or functions that take nothing and return
a `SpectralMethod`."""


def spectral_methods(mergekit_methods: Iterable[MergeMethod]) -> list[SpectralMethod]:
    """Return all methods of this package and of packages that depend on it.

    Args:
        mergekit_methods: those that mergekit registers. For each generalized task arithmetic
            method M among them there is a `knots_M`.
    """
    inner = [m for m in mergekit_methods if isinstance(m, GeneralizedTaskArithmeticMerge)]
    ties = next(method for method in inner if method.spec.name == "ties")
    return [
        DRM(),
        STAR(),
        Iso(),
        TSVM(),
        ACTMat(),
        KnOTS(ties, name="knots"),
        *map(KnOTS, inner),
        *_of_other_packages(),
    ]


def _of_other_packages() -> Iterator[SpectralMethod]:
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            method = entry.load()()
            if not isinstance(method, SpectralMethod):
                raise TypeError(f"{entry.value} returns {method!r}, which is not a SpectralMethod")
        except Exception as error:
            # A broken package must not take the other methods away.
            LOG.warning(
                "The merge method %s of %s cannot be loaded, and the others are used without it: "
                "%s: %s.",
                entry.name,
                entry.dist.name if entry.dist else "another package",
                type(error).__name__,
                str(error).rstrip("."),
            )
        else:
            yield method
