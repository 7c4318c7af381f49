"""Eigendecomposition of Gram matrices: all eigenvalues, and the leading eigenvectors.

`torch.linalg.eigh` computes all vectors, and needs 32·n² bytes. Where few vectors are wanted, or
the matrix is not small, the CPU takes LAPACK's three steps one by one. That is faster, because the
results between them can be used (but not where threads compete, see `threads_compete`):

1. The matrix is reduced to a tridiagonal one: 4/3·n³ operations, half of them bound by memory.
2. All eigenvalues of the tridiagonal matrix cost next to nothing. They decide how many vectors to
   keep, and only those are computed.
3. The reduction's reflections turn these vectors into those of the original matrix: 2·n²·k
   operations. For large matrices, and where the caller says so, this step runs in float32. It
   then takes half the time and memory, and its error is 6e-7.

Block iterations from random vectors are slower at this precision. The singular values of real
deltas fall slowly, so neighbouring ones are close, also at the last direction that is kept. For
1/16 to 1/4 of the vectors of matrices of 1024 and 2048 rows, iterations in float64 take 2 to 22
times as long as these steps (docs/performance.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal, eigvalsh_tridiagonal, lapack
from torch import Tensor
from torch.linalg import LinAlgError as LinAlgError  # type: ignore[attr-defined]

from mergekit_spectral.spectral.numerics import threads_compete

RankRule = Callable[[Tensor], int]
"""From all singular values, [n] in float64 and descending, to the number of directions to keep."""

Array = Any  # a float64 array of NumPy's; scipy brings no types

LOG = logging.getLogger(__name__)

_SMALL = 64
"""Up to this size, the calls take longer than the work."""

_MEDIUM = 512
"""Up to this size, one call for all vectors is as fast as the steps. At 2048, it takes 1.7 times as
long."""

_LARGE = 2048
"""From this size on, time and memory matter more than the last digits of the vectors: these decide
about a few entries of more than four million."""

_DIVIDE_AND_CONQUER = 4096
"""The largest size for divide and conquer, which needs n² values more of workspace."""


def leading_eigenvectors(
    gram: Tensor, rank: RankRule, dtype: torch.dtype, few: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the singular vectors and values of M from M·Mᵀ.

    Args:
        gram: M·Mᵀ, [n, n] in float64, on the CPU or CUDA. Only its upper triangle is read. It may
            be empty afterwards, because its memory is needed for the vectors.
        rank: how many vectors to keep; only those are computed.
        dtype: the least precise dtype that the vectors may have, float32 or float64.
        few: whether to expect that at most a quarter of the vectors are kept. More take longer than
            all do.

    Returns:
        The k leading eigenvectors, [n, k] in `dtype` or in float64, and the square roots of all
        eigenvalues, [n] in float64, largest first.

    Raises:
        LinAlgError: if no algorithm converges.
    """
    if not gram.diagonal().sum().isfinite():
        raise LinAlgError("the entries' squares are out of float64's range")
    whole = _SMALL if few else _MEDIUM
    by_steps = gram.device.type == "cpu" and len(gram) > whole
    by_steps &= few or not threads_compete(len(gram))
    if not few and len(gram) <= _LARGE:
        dtype = torch.float64
    if not by_steps:
        try:
            return _whole(gram, rank)
        except (torch.OutOfMemoryError, LinAlgError) as error:
            # The CPU has more memory, and the steps have other algorithms.
            reason = str(error).split(". ")[0]
        _log_once(reason)
    vectors, values = _by_steps(gram.cpu().contiguous(), rank, dtype, few)
    return vectors.to(gram.device), values.to(gram.device)


@cache
def _log_once(reason: str) -> None:
    LOG.warning("Eigendecompositions continue on the CPU, step by step: %s", reason)


def _whole(gram: Tensor, rank: RankRule) -> tuple[Tensor, Tensor]:
    eigenvalues, vectors = torch.linalg.eigh(gram, UPLO="U")
    values = _roots(eigenvalues)
    k = count_kept(rank, values)
    return vectors[:, len(gram) - k :].flip(1), values


def _by_steps(gram: Tensor, rank: RankRule, dtype: torch.dtype, few: bool) -> tuple[Tensor, Tensor]:
    n = len(gram)
    diagonal, beside, tau = _reduce(gram)
    # Reflection i does not change the first i + 1 coordinates. `ormqr` takes n reflections, so a
    # first one is added that changes nothing; without it the vectors would have to be cut.
    reflections = gram.new_empty(n, n, dtype=dtype)
    reflections[0] = 0
    reflections[1:] = gram[:-1]
    scales = torch.cat([gram.new_zeros(1), torch.from_numpy(tau)]).to(dtype)
    gram.set_()  # type: ignore[call-overload]
    vectors, values = _tridiagonal(diagonal, beside, rank, few)
    # Reversed and rounded in one pass.
    largest_first = np.array(vectors.T[::-1], dtype=str(dtype).removeprefix("torch."))
    del vectors
    return torch.ormqr(reflections.T, scales, torch.from_numpy(largest_first).T), values


def _reduce(gram: Tensor) -> tuple[Array, Array, Array]:
    """Reduce a symmetric matrix to a tridiagonal one; the reflections overwrite the matrix."""
    # LAPACK reads columns. The transpose of the upper triangle is a lower one, without a copy.
    columns = gram.numpy().T
    work, _ = lapack.dsytrd_lwork(len(gram), lower=1)
    reduced, diagonal, beside, tau, _ = lapack.dsytrd(
        columns, lower=1, lwork=int(work), overwrite_a=1
    )
    assert np.shares_memory(reduced[:1], columns[:1])
    return diagonal, beside, tau


def _tridiagonal(diagonal: Array, beside: Array, rank: RankRule, few: bool) -> tuple[Array, Tensor]:
    """Return the leading eigenvectors in columns, largest last, and all values, largest first."""
    n = len(diagonal)
    # For all vectors, divide and conquer is several times as fast. scipy has it since 1.16.
    all_vectors = None if few or n > _DIVIDE_AND_CONQUER else getattr(lapack, "dstevd", None)
    if all_vectors is not None:
        eigenvalues, vectors, failed = all_vectors(diagonal, beside)
        if failed:
            eigenvalues, vectors = _in_a_safer_way(diagonal, beside)
        values = _roots(torch.from_numpy(eigenvalues))
        return vectors[:, n - count_kept(rank, values) :], values
    eigenvalues, failed = lapack.dsterf(diagonal, beside)
    if failed:
        # Bisection is slower, but it cannot fail to converge.
        eigenvalues = eigvalsh_tridiagonal(diagonal, beside, lapack_driver="stebz")
    values = _roots(torch.from_numpy(eigenvalues))
    return _leading(diagonal, beside, count_kept(rank, values)), values


def _leading(diagonal: Array, beside: Array, k: int) -> Array:
    n = len(diagonal)
    if k == 0:
        return np.empty((n, 0))
    padded = np.append(beside, 0.0)
    sizes = lapack.dstemr_lwork(diagonal, padded, 2, 0.0, 1.0, n - k + 1, n, compute_v=1)
    # The routine overwrites its arguments.
    found, _, vectors, failed = lapack.dstemr(
        diagonal.copy(), padded.copy(), 2, 0.0, 1.0, n - k + 1, n,
        compute_v=1, lwork=int(sizes[0]), liwork=int(sizes[1]),
    )  # fmt: skip
    if failed or found != k:
        return _in_a_safer_way(diagonal, beside)[1][:, n - k :]
    return vectors[:, :k]


def _in_a_safer_way(diagonal: Array, beside: Array) -> tuple[Array, Array]:
    try:
        eigenvalues, vectors = eigh_tridiagonal(diagonal, beside, lapack_driver="stev")
    except np.linalg.LinAlgError as error:
        raise LinAlgError(str(error)) from error
    return eigenvalues, vectors


def _roots(eigenvalues: Tensor) -> Tensor:
    return eigenvalues.flip(0).clamp_(min=0).sqrt_()


def count_kept(rank: RankRule, values: Tensor) -> int:
    """Return the number of directions to keep: none of a matrix that is zero."""
    return rank(values) if values.numel() and values[0] > 0 else 0
