"""KnOTS: align the inputs by a joint SVD, then merge them with any existing method.

Stoica et al., arXiv 2410.19735.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge
from mergekit.sparsify import SparsificationMethod
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
from mergekit_spectral.spectral import (
    Coordinates,
    Delta,
    Entries,
    FactoredDelta,
    HeldEntries,
    Merge,
    Store,
    above_tolerance,
    joint_decomposition,
    merge_entries,
    stored_in,
)


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
            summary=f"Joint SVD, then mergekit's own `{inner.spec.name}` on the aligned "
            "coordinates",
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
        coordinates = Coordinates(joint, deltas)
        merged = joint.basis.new_empty(coordinates.shape)
        self.merge_elementwise(coordinates, settings, stored_in(merged))
        return FactoredDelta(joint.basis, merged)

    def merge_elementwise(self, entries: Entries, settings: Settings, store: Store) -> None:
        """Run the inner method on the inputs' entries, as task vectors over a zero base."""
        kind, densities = self.inner.sparsification_method, settings["density"]
        votes = settings["weight"] if self.inner.consensus_method else None
        by_places = min(densities, default=1.0) > 0 and not settings["rescale"]
        if kind is None or min(densities, default=1.0) >= 1:
            merge_entries(entries, self._inner(settings), store, votes=votes)
        elif kind == SparsificationMethod.magnitude and by_places:
            # The inner method's own trimming, without its sort of all entries.
            drop = [trimmed(entries.numel, density) for density in densities]
            merge_entries(entries, self._inner(settings, density=1.0), store, drop, votes)
        elif kind == SparsificationMethod.random and by_places:
            merge_entries(entries, self._inner(settings), store)
        else:
            # What becomes of an entry depends on others of its input, so each is made whole.
            whole = [self._sparsified(entries.whole(t), settings, t) for t in range(entries.count)]
            merge_entries(HeldEntries(whole), self._inner(settings, density=1.0), store)

    def _inner(self, settings: Settings, **changes: Any) -> Merge:
        theirs = {spec.name: settings[spec.name] for spec in self.inner.spec.parameters}
        # λ is applied once, where the merged delta meets the base.
        parameters = {**theirs, "lambda": 1.0, **changes}

        def merge(tensors: Sequence[Tensor]) -> Tensor:
            zero = tensors[0].new_zeros(()).expand_as(tensors[0])
            group = TensorGroup.from_tensors([zero, *tensors], base_index=0)
            try:
                (merged,) = self.inner((group,), parameters=parameters)
            except ValueError as error:
                raise MergeError(f"{self.spec.name}: {error}.") from error
            return merged

        return merge

    def _sparsified(self, values: Tensor, settings: Settings, t: int) -> Tensor:
        """Return input t as the inner method sparsifies it: what it makes of it alone."""
        own = {spec.name: [settings[spec.name][t]] for spec in self.inner.spec.input_parameters}
        return self._inner({**settings, **own}, weight=1.0, normalize=False)([values])


def trimmed(count: int, density: float) -> int:
    """Return j where TIES, keeping the share `density` of `count` entries, keeps the j-th smallest.

    Those below it go; 0 where nothing does.
    """
    return count - max(1, int(density * count)) + 1 if density < 1 else 0
