"""KnOTS: align the inputs by a joint SVD, then merge them with any existing method.

Stoica et al., arXiv 2410.19735.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge
from mergekit.sparsify import SparsificationMethod, sparsify
from torch import Tensor

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.base import Settings, SpectralMethod
from mergekit_spectral.methods.costs import (
    DENSE_BYTES,
    TensorInputs,
    Work,
    gram_memory,
    joint_work,
)
from mergekit_spectral.methods.direction import along_shared_side, shared_lengths
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
    DroppedEntries,
    Entries,
    FactoredDelta,
    Merge,
    SparsifiedEntries,
    Store,
    above_tolerance,
    disjoint_mean,
    joint_decomposition,
    merge_entries,
    stored_in,
)

SPARSIFIED_BYTES = 1.2
"""Bytes for each entry and each input, for what the inner method leaves of it (fitted)."""
DELLA = SparsificationMethod.della_magprune


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
        """Run the inner method on the inputs' entries, as task vectors over a zero base.

        It is given what its own sparsification leaves of them, so that what rounding could decide
        there and in its election of signs is decided by this package's rules for ties.
        """
        kind, densities = self.inner.sparsification_method, settings["density"]
        votes = settings["weight"] if self.inner.consensus_method else None
        merge = self._inner(settings, density=1.0)
        if votes and settings["normalize"] and min(votes) < 0 < max(votes):
            # mergekit divides by any sum of weights but an exact zero, and so by rounding noise.
            merge = partial(disjoint_mean, weights=votes)
        if kind is None or min(densities, default=1.0) >= 1:
            merge_entries(entries, merge, store, votes=votes)
        elif kind == SparsificationMethod.random and not settings["rescale"]:
            dropped = DroppedEntries(entries, partial(self._alone, settings))
            merge_entries(dropped, merge, store, votes=votes)
        elif (ranks := self._kept_ranks(entries.numel, settings)) and not settings["rescale"]:
            first, last = zip(*ranks, strict=True)
            merge_entries(entries, merge, store, first, votes, last)
        else:
            # What becomes of an entry depends on others of its input, so each is made whole.
            sparsified = [self._sparsified(entries, settings, t) for t in range(entries.count)]
            merge_entries(SparsifiedEntries(entries, sparsified), merge, store, votes=votes)

    @property
    def averages_all(self) -> bool:  # type: ignore[override]  # a constant there
        """Whether the inner method adds all inputs, without electing signs."""
        return self.inner.consensus_method is None

    def matrix_work(self, tensor: TensorInputs) -> Work:
        side, other = shared_lengths(tensor.settings["direction"], tensor.matrix_shape)
        return joint_work(side, other, tensor.known_ranks, tensor.count)

    def dense_memory(self, tensor: TensorInputs) -> float:
        side, _ = shared_lengths(tensor.settings["direction"], tensor.matrix_shape)
        per_entry = DENSE_BYTES + SPARSIFIED_BYTES * tensor.count
        return per_entry * tensor.shape.numel() + gram_memory(side, tensor.count)

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

    def _sparsified(self, entries: Entries, settings: Settings, t: int) -> tuple[Tensor, float]:
        """Return what the inner method leaves of input t, and the factor that it scales it by."""
        own = entries.only(t)
        whole = own.take(slice(0, own.shape[0])).values[0]
        if ranks := self._kept_ranks(own.numel, settings):
            first, last = ranks[t]
            kept = torch.empty_like(whole)
            merge_entries(own, itemgetter(0), stored_in(kept), [first], outliers=[last])
        else:
            kept = self._alone(settings, t, whole)
        if not settings["rescale"]:
            return kept, 1.0
        before, after = (
            float(torch.linalg.vector_norm(values, ord=1, dtype=torch.float64))
            for values in (whole, kept)
        )
        return kept, before / after if after else 1.0

    def _alone(self, settings: Settings, t: int, values: Tensor) -> Tensor:
        """Return input t as the inner method sparsifies it, without its rescaling.

        mergekit drops entries at random in float32, so only what it drops is taken from it. DELLA
        drops by the rank of an entry in its row; where a row has one entry, there are no ranks, and
        it goes by its density alone.
        """
        if self.inner.sparsification_method == DELLA and values.shape[1] == 1:
            density = settings["density"][t]
            return values * sparsify(values, density, SparsificationMethod.random).ne(0)
        own = {spec.name: [settings[spec.name][t]] for spec in self.inner.spec.input_parameters}
        inner = self._inner({**settings, **own}, weight=1.0, normalize=False, rescale=False)
        return values * inner([values]).ne(0)

    def _kept_ranks(self, count: int, settings: Settings) -> list[tuple[int, int]] | None:
        """Return the ranks, by magnitude from the smallest, between which entries are kept.

        Args:
            count: the number of entries of an input.
            settings: the recipe's parameters.

        Returns:
            Each input's first and last rank, counted from 1, and 0 where there is no such limit.
            The first is `count` + 1 where nothing is kept. None if the inner method goes by more
            than magnitudes.
        """
        densities = settings["density"]
        kind = self.inner.sparsification_method
        if kind == SparsificationMethod.magnitude:
            return [(trimmed(count, density), 0) for density in densities]
        if kind == SparsificationMethod.magnitude_outliers:
            return [
                without_outliers(count, density, gamma)
                for density, gamma in zip(densities, settings["gamma"], strict=True)
            ]
        return None


def trimmed(count: int, density: float) -> int:
    """Return j where TIES, keeping the share `density` of `count` entries, keeps the j-th smallest.

    Those below it go; 0 where nothing does, and `count` + 1 where all do.
    """
    if density <= 0:
        return count + 1
    return count - max(1, int(density * count)) + 1 if density < 1 else 0


def without_outliers(count: int, density: float, gamma: float) -> tuple[int, int]:
    """Return the ranks of the smallest and the largest of `count` entries that Breadcrumbs keeps.

    It drops the share `gamma`, the largest, and keeps the share `density` below; where there are
    not as many left, fewer of the largest go. (0, 0) where nothing goes, and (`count` + 1, 0) where
    all do.
    """
    if density >= 1:
        return 0, 0
    kept = max(0, int(density * count))
    if kept == 0:
        return count + 1, 0
    smallest = max(0, count - kept - int(gamma * count))
    return smallest + 1, smallest + kept
