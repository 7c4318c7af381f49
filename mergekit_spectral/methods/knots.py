"""KnOTS: align the inputs by a joint SVD, then merge them with any existing method.

Stoica et al., arXiv 2410.19735.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any, TypedDict

import torch
from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge
from mergekit.sparsify import SparsificationMethod, sparsify
from torch import Tensor

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.base import (
    SpectralMethod,
    along_shared_side,
    joint_basis,
    kept_share,
)
from mergekit_spectral.methods.costs import TensorInputs
from mergekit_spectral.methods.mergekits_own import averages_all
from mergekit_spectral.methods.parameters import (
    DIRECTION,
    EMBEDDINGS,
    LAMBDA,
    MARGIN,
    RANK,
    RANK_TOLERANCE,
    WEIGHT,
    SearchRange,
    borrowed,
)
from mergekit_spectral.spectral import (
    Coordinates,
    Delta,
    DroppedEntries,
    Entries,
    FactoredDelta,
    KeptRange,
    MergeFunction,
    Output,
    SparsifiedEntries,
    TensorOutput,
    disjoint_mean,
    merge_entries,
)

SPARSIFIED_BYTES = 1.2
"""Bytes for each entry and each input, for what the inner method leaves of it (fitted)."""
DELLA = SparsificationMethod.della_magprune


class KnOTSSettings(TypedDict):
    """The parameters of `knots_M` for one tensor that all M have. Lists: a value for each input."""

    weight: list[float]
    density: list[float]
    gamma: list[float]
    normalize: bool
    rescale: bool
    direction: str
    rank_tolerance: float
    rank: float | None


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
                RANK,
                EMBEDDINGS,
            ),
        )

    @along_shared_side
    def merge_matrices(self, deltas: Sequence[Delta], settings: KnOTSSettings) -> Delta:
        joint = joint_basis(deltas, settings)
        coordinates = Coordinates(joint, deltas)
        merged = joint.basis.new_empty(coordinates.shape)
        self.merge_elementwise(coordinates, settings, TensorOutput(merged))
        return FactoredDelta(joint.basis, merged)

    def merge_elementwise(self, entries: Entries, settings: KnOTSSettings, output: Output) -> None:
        """Run the inner method on the inputs' entries, as task vectors over a zero base.

        The inner method gets entries that are sparsified already. So this package's rules for ties
        decide where rounding could, in the sparsification and in the election of signs.
        """
        kind, densities = self.inner.sparsification_method, settings["density"]
        votes = settings["weight"] if self.inner.consensus_method else None
        merge = self._inner(settings, density=1.0)
        if votes and settings["normalize"] and min(votes) < 0 < max(votes):
            # mergekit divides by any sum of weights except an exact zero, also by rounding noise.
            merge = partial(disjoint_mean, weights=votes)
        if kind is None or min(densities, default=1.0) >= 1:
            merge_entries(entries, merge, output, votes=votes)
        elif kind == SparsificationMethod.random and not settings["rescale"]:
            dropped = DroppedEntries(entries, partial(self._alone, settings))
            merge_entries(dropped, merge, output, votes=votes)
        elif (keep := self._kept_ranges(entries.numel, settings)) and not settings["rescale"]:
            merge_entries(entries, merge, output, keep, votes)
        else:
            # An entry's value depends on others of its input, so each input is sparsified as a
            # whole.
            sparsified = [self._sparsified(entries, settings, t) for t in range(entries.inputs)]
            merge_entries(SparsifiedEntries(entries, sparsified), merge, output, votes=votes)

    @property
    def averages_all(self) -> bool:  # type: ignore[override]  # a constant there
        """Whether the inner method adds all inputs, without electing signs."""
        return averages_all(self.inner)

    def evolved_parameters(self) -> dict[str, SearchRange]:
        """Return the range of ``density`` if the inner method prunes.

        DELLA needs densities between ε and 1 − ε. Its ε is not varied, so it has its default.
        """
        if self.inner.sparsification_method is None:
            return {}
        epsilons = [p.default for p in self.inner.spec.parameters if p.name == "epsilon"]
        lowest = MARGIN + max(epsilons, default=0.0)
        return {"density": SearchRange(lowest, 1 - lowest if epsilons else 1.0)}

    def dense_memory(self, tensor: TensorInputs) -> float:
        sparsified = kept_share(tensor) * SPARSIFIED_BYTES * tensor.count * tensor.shape.numel()
        return super().dense_memory(tensor) + sparsified

    def _inner(self, settings: KnOTSSettings, **changes: Any) -> MergeFunction:
        """Return the inner method's merge.

        Args:
            settings: the recipe's parameters.
            changes: values to use in place of the recipe's.
        """
        values: dict[str, Any] = dict(settings)
        theirs = {spec.name: values[spec.name] for spec in self.inner.spec.parameters}
        # λ is applied once, when the merged delta is added to the base.
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

    def _sparsified(
        self, entries: Entries, settings: KnOTSSettings, t: int
    ) -> tuple[Tensor, float]:
        """Return input t as the inner method sparsifies it, and the factor that rescales it."""
        own = entries.of_input(t)
        whole = own.take(slice(0, own.shape[0])).values[0]
        if keep := self._kept_ranges(own.numel, settings):
            kept = torch.empty_like(whole)
            merge_entries(own, itemgetter(0), TensorOutput(kept), [keep[t]])
        else:
            kept = self._alone(settings, t, whole)
        if not settings["rescale"]:
            return kept, 1.0
        before, after = (
            float(torch.linalg.vector_norm(values, ord=1, dtype=torch.float64))
            for values in (whole, kept)
        )
        return kept, before / after if after else 1.0

    def _alone(self, settings: KnOTSSettings, t: int, values: Tensor) -> Tensor:
        """Return input t as the inner method sparsifies it, without its rescaling.

        mergekit drops entries at random in float32. Only the places are taken from it, so that no
        value is rounded. DELLA drops by the rank of an entry in its row. A row of one entry has no
        ranks; there only the density counts.
        """
        if self.inner.sparsification_method == DELLA and values.shape[1] == 1:
            density = settings["density"][t]
            return values * sparsify(values, density, SparsificationMethod.random).ne(0)
        of_all: dict[str, Any] = dict(settings)
        own = {spec.name: [of_all[spec.name][t]] for spec in self.inner.spec.input_parameters}
        changes = {**own, "weight": 1.0, "normalize": False, "rescale": False}
        return values * self._inner(settings, **changes)([values]).ne(0)

    def _kept_ranges(self, count: int, settings: KnOTSSettings) -> list[KeptRange] | None:
        """Return the range that is kept of each input's `count` entries.

        None if the inner method decides by more than magnitudes.
        """
        densities = settings["density"]
        kind = self.inner.sparsification_method
        if kind == SparsificationMethod.magnitude:
            return [trimmed(count, density) for density in densities]
        if kind == SparsificationMethod.magnitude_outliers:
            return [
                without_outliers(count, density, gamma)
                for density, gamma in zip(densities, settings["gamma"], strict=True)
            ]
        return None


def trimmed(count: int, density: float) -> KeptRange:
    """Return the range that TIES keeps of `count` entries: the share `density` of the largest."""
    if density >= 1:
        return KeptRange()
    if density <= 0:
        return KeptRange(first=count + 1)
    return KeptRange(first=count - max(1, int(density * count)) + 1)


def without_outliers(count: int, density: float, gamma: float) -> KeptRange:
    """Return the range that Breadcrumbs keeps of `count` entries.

    It drops the share `gamma`, the largest, and keeps the share `density` below them. If fewer are
    left below, it drops fewer of the largest.
    """
    if density >= 1:
        return KeptRange()
    kept = max(0, int(density * count))
    if kept == 0:
        return KeptRange(first=count + 1)
    smallest = max(0, count - kept - int(gamma * count))
    return KeptRange(first=smallest + 1, last=smallest + kept)
