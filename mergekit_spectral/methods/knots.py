"""KnOTS: align the inputs by a joint SVD, then merge them with any existing method.

Stoica et al., arXiv 2410.19735.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge
from torch import Tensor

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.base import Settings, SpectralMethod
from mergekit_spectral.methods.direction import along_shared_side
from mergekit_spectral.methods.parameters import (
    DIRECTION,
    EMBEDDINGS,
    LAMBDA,
    RANK_TOLERANCE,
    WEIGHT,
    borrowed,
)
from mergekit_spectral.spectral import Delta, FactoredDelta, above_tolerance, joint_decomposition


class KnOTS(SpectralMethod):
    """Another method, run on the coordinates of the inputs in their joint basis.

    Args:
        inner: one of mergekit's generalized task arithmetic methods. Its parameters are this
            method's too, with its defaults, except that ``weight`` need not be given.
        name: the name in recipes, ``knots_`` and the inner method's by default.
    """

    def __init__(self, inner: GeneralizedTaskArithmeticMerge, name: str | None = None):
        self.inner = inner
        ours = {parameter.name: parameter for parameter in (WEIGHT, LAMBDA)}
        theirs = [ours.get(spec.name, borrowed(spec)) for spec in inner.spec.parameters]
        super().__init__(
            name=name or f"knots_{inner.spec.name}",
            pretty_name=f"KnOTS-{inner.spec.pretty_name}",
            reference_url="https://arxiv.org/abs/2410.19735",
            parameters=(
                *theirs,
                DIRECTION,
                replace(RANK_TOLERANCE, default=1e-5),
                EMBEDDINGS,
            ),
        )

    @along_shared_side
    def merge_matrices(self, deltas: Sequence[Delta], settings: Settings) -> Delta:
        tolerance = settings["rank_tolerance"]
        joint = joint_decomposition(deltas, above_tolerance(tolerance), resolution=tolerance)
        coordinates = [joint.coordinates(delta) for delta in deltas]
        return FactoredDelta(joint.basis, self.merge_elementwise(coordinates, settings))

    def merge_elementwise(self, deltas: Sequence[Tensor], settings: Settings) -> Tensor:
        zero = deltas[0].new_zeros(()).expand_as(deltas[0])
        group = TensorGroup.from_tensors([zero, *deltas], base_index=0)
        theirs = {spec.name: settings[spec.name] for spec in self.inner.spec.parameters}
        try:
            # λ is applied once, where the merged delta meets the base.
            (merged,) = self.inner((group,), parameters={**theirs, "lambda": 1.0})
        except ValueError as error:
            raise MergeError(f"{self.spec.name}: {error}.") from error
        return merged
