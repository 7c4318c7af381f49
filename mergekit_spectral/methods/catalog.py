"""Which methods there are."""

from __future__ import annotations

from collections.abc import Iterable

from mergekit.merge_methods.base import MergeMethod
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

from mergekit_spectral.methods.base import SpectralMethod
from mergekit_spectral.methods.drm import DRM
from mergekit_spectral.methods.knots import KnOTS
from mergekit_spectral.methods.star import STAR


def spectral_methods(host_methods: Iterable[MergeMethod]) -> list[SpectralMethod]:
    """Return `drm`, `star`, `knots` and, for each generalized task arithmetic method M, `knots_M`.

    Args:
        host_methods: mergekit's registered methods; the others among them are passed over.
    """
    inner = [m for m in host_methods if isinstance(m, GeneralizedTaskArithmeticMerge)]
    ties = next(method for method in inner if method.spec.name == "ties")
    return [DRM(), STAR(), KnOTS(ties, name="knots"), *map(KnOTS, inner)]
