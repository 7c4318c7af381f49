"""The mathematics of merging in spectral space, on plain tensors.

It needs nothing but torch and knows nothing of mergekit, recipes or files.
"""

from mergekit_spectral.spectral.close_calls import Merge, Store
from mergekit_spectral.spectral.compression import Compressed, compress
from mergekit_spectral.spectral.consensus import disjoint_mean, mean_weights, weighted_mean
from mergekit_spectral.spectral.decomposition import (
    JointDecomposition,
    above_tolerance,
    joint_decomposition,
)
from mergekit_spectral.spectral.delta import Delta, DenseDelta
from mergekit_spectral.spectral.entries import (
    Coordinates,
    DeltaEntries,
    DroppedEntries,
    Entries,
    HeldEntries,
    RenormalizedCoordinates,
    SparsifiedEntries,
)
from mergekit_spectral.spectral.factored_delta import FactoredDelta, linear_combination
from mergekit_spectral.spectral.pruning import merge_entries, stored_in
from mergekit_spectral.spectral.truncation import kept_rank, truncate

__all__ = [
    "Compressed",
    "Coordinates",
    "Delta",
    "DeltaEntries",
    "DenseDelta",
    "DroppedEntries",
    "Entries",
    "FactoredDelta",
    "HeldEntries",
    "JointDecomposition",
    "Merge",
    "RenormalizedCoordinates",
    "SparsifiedEntries",
    "Store",
    "above_tolerance",
    "compress",
    "disjoint_mean",
    "joint_decomposition",
    "kept_rank",
    "linear_combination",
    "mean_weights",
    "merge_entries",
    "stored_in",
    "truncate",
    "weighted_mean",
]
