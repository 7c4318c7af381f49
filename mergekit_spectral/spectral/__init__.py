"""The mathematics of merging in spectral space, on plain tensors.

It needs torch, numpy and scipy, and does not depend on mergekit, recipes or files. Other packages
import from here only; the modules are private to this subpackage:

- `deltas`: what is merged.
- `svd`: how deltas are decomposed.
- `merging`: how the inputs' entries are pruned and merged.
- `low_rank`: approximations of low rank.
- `projection`: bases of low rank that several deltas share.
- `numerics`: precision, and sizes of blocks.

Deltas: `Delta` and its two kinds, `DenseDelta` and `FactoredDelta`; `linear_combination`.

Decomposition: `joint_decomposition` of several deltas returns a `JointDecomposition`, and
`singular_triples` of one delta `SingularTriples`. Both take a rule that chooses the rank from the
singular values, as `above_tolerance`, `leading` and `at_most` make it. `nearest_orthonormal` makes
columns of several deltas orthonormal. All raise `LinAlgError` if no algorithm converges.

Merging: `merge_entries` merges `Entries` (`DeltaEntries`, `Coordinates` and others) by a
`MergeFunction` (`disjoint_mean`, `weighted_mean`), keeps a `KeptRange` of them and writes to an
`Output`.

Low rank: `truncate` and `kept_rank` (STAR), `compress` returns a `Compressed`, `shared_bases` of
several deltas `SharedBases`.

Precision: `exact_matmul`, `working_dtype`, `TIE`. Memory: `in_blocks_that_fit`, and `slices` of
`STREAM_BLOCK` entries.
"""

from mergekit_spectral.spectral.deltas import (
    Delta,
    DenseDelta,
    FactoredDelta,
    linear_combination,
)
from mergekit_spectral.spectral.low_rank import Compressed, compress, kept_rank, truncate
from mergekit_spectral.spectral.merging.averaging import (
    disjoint_mean,
    mean_weights,
    relative_mean,
    relative_weights,
    weighted_mean,
)
from mergekit_spectral.spectral.merging.entries import (
    Coordinates,
    DeltaEntries,
    DroppedEntries,
    Entries,
    HeldEntries,
    RenormalizedCoordinates,
    Rows,
    SparsifiedEntries,
    UnnormalizedCoordinates,
)
from mergekit_spectral.spectral.merging.merge_entries import (
    MergeFunction,
    Output,
    TensorOutput,
    merge_entries,
)
from mergekit_spectral.spectral.merging.thresholds import KeptRange
from mergekit_spectral.spectral.numerics import (
    FLOATS,
    STREAM_BLOCK,
    TIE,
    dtype_name,
    exact_matmul,
    in_blocks_that_fit,
    slices,
    working_dtype,
)
from mergekit_spectral.spectral.projection import SharedBases, shared_bases
from mergekit_spectral.spectral.svd.eigen import LinAlgError
from mergekit_spectral.spectral.svd.joint import (
    JointDecomposition,
    above_tolerance,
    joint_decomposition,
    leading,
)
from mergekit_spectral.spectral.svd.triples import (
    SingularTriples,
    at_most,
    nearest_orthonormal,
    singular_triples,
)

__all__ = [
    "FLOATS",
    "STREAM_BLOCK",
    "TIE",
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
    "KeptRange",
    "LinAlgError",
    "MergeFunction",
    "Output",
    "RenormalizedCoordinates",
    "Rows",
    "SharedBases",
    "SingularTriples",
    "SparsifiedEntries",
    "TensorOutput",
    "UnnormalizedCoordinates",
    "above_tolerance",
    "at_most",
    "compress",
    "disjoint_mean",
    "dtype_name",
    "exact_matmul",
    "in_blocks_that_fit",
    "joint_decomposition",
    "kept_rank",
    "leading",
    "linear_combination",
    "mean_weights",
    "merge_entries",
    "nearest_orthonormal",
    "relative_mean",
    "relative_weights",
    "shared_bases",
    "singular_triples",
    "slices",
    "truncate",
    "weighted_mean",
    "working_dtype",
]
