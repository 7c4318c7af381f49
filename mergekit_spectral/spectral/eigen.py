"""Eigendecomposition of Gram matrices: all eigenvalues, and the leading eigenvectors.

On the CPU it is done in LAPACK's three steps, because what lies between them is worth having:

1. the matrix is reduced to a tridiagonal one, 4/3·n³ operations, half of them bound by memory;
2. that one's eigenvalues, all of them, cost next to nothing, and say how many vectors to keep; only
   those are computed;
3. they are turned back by the reduction's reflections, 2·n²·k operations. This is where vectors are
   used and no longer made, so it is done in the working dtype, which halves its time.

`torch.linalg.eigh` has no way to stop between the steps. It serves where there is no such choice:
on CUDA, and for matrices so small that calls cost more than work.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal, eigvalsh_tridiagonal, lapack
from torch import Tensor

from mergekit_spectral.spectral.gram import LinAlgError, RankRule, kept

Array = Any  # a float64 array of NumPy's; scipy brings no types

LOG = logging.getLogger(__name__)

_SMALL = 64
_DIVIDE_AND_CONQUER = 4096
"""The largest matrix for which divide and conquer is worth its n² values of workspace."""


def leading_eigenvectors(gram: Tensor, rank: RankRule, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the singular vectors and values of M from M·Mᵀ.

    Args:
        gram: M·Mᵀ, [n, n] in float64, on the CPU or CUDA. Only its upper triangle is read, and its
            storage is used up.
        rank: how many vectors to keep; only those are made.
        dtype: of the vectors, float32 or float64.

    Returns:
        The k leading eigenvectors, [n, k], and the square roots of all eigenvalues, [n] in
        float64, largest first.

    Raises:
        LinAlgError: if no algorithm converges.
    """
    if not gram.diagonal().sum().isfinite():
        raise LinAlgError("the entries' squares are out of float64's range")
    if gram.device.type == "cuda":
        try:
            return _whole(gram, rank, dtype)
        except (torch.OutOfMemoryError, LinAlgError) as error:
            # The CPU has more memory, and other algorithms.
            LOG.warning("Eigendecomposition goes on on the CPU: %s", str(error).split("\n")[0])
            vectors, values = _by_steps(gram.cpu(), rank, dtype)
            return vectors.to(gram.device), values.to(gram.device)
    return (_whole if len(gram) <= _SMALL else _by_steps)(gram, rank, dtype)


def _whole(gram: Tensor, rank: RankRule, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    eigenvalues, vectors = torch.linalg.eigh(gram, UPLO="U")
    values = _roots(eigenvalues)
    k = kept(rank, values)
    return vectors[:, len(gram) - k :].flip(1).to(dtype), values


def _by_steps(gram: Tensor, rank: RankRule, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    n = len(gram)
    gram = gram.contiguous()
    # LAPACK reads columns: the transpose of the upper triangle is its lower one, without a copy.
    work, _ = lapack.dsytrd_lwork(n, lower=1)
    _, diagonal, beside, tau, _ = lapack.dsytrd(
        gram.numpy().T, lower=1, lwork=int(work), overwrite_a=1
    )
    values = _roots(torch.from_numpy(_eigenvalues(diagonal, beside)))
    k = kept(rank, values)
    # Reflection i leaves the first i + 1 coordinates alone. A first one that does nothing makes
    # them the n reflections that `ormqr` takes, and the vectors need not be cut.
    reflections = gram.new_zeros(n, n, dtype=dtype)
    reflections[1:] = gram[:-1]
    scales = torch.cat([gram.new_zeros(1), torch.from_numpy(tau)]).to(dtype)
    del gram
    vectors = _vectors(diagonal, beside, k)
    # Turned round and rounded in one pass.
    largest_first = np.array(vectors.T[::-1], dtype=str(dtype).removeprefix("torch."))
    del vectors
    return torch.ormqr(reflections.T, scales, torch.from_numpy(largest_first).T), values


def _eigenvalues(diagonal: Array, beside: Array) -> Array:
    values, failed = lapack.dsterf(diagonal, beside)
    # Bisection is slower, and does not iterate towards anything that it could miss.
    return eigvalsh_tridiagonal(diagonal, beside, lapack_driver="stebz") if failed else values


def _vectors(diagonal: Array, beside: Array, k: int) -> Array:
    """Return the k leading eigenvectors of a tridiagonal matrix in columns, largest last."""
    n = len(diagonal)
    if k == 0:
        return np.empty((n, 0))
    # Relatively robust representations take O(n·k), divide and conquer O(n³) at several times the
    # speed for all vectors. scipy has the latter from 1.16 on.
    stevd = getattr(lapack, "dstevd", None)
    if stevd is not None and k > n // 4 and n <= _DIVIDE_AND_CONQUER:
        _, vectors, failed = stevd(diagonal, beside)
    else:
        padded = np.append(beside, 0.0)
        sizes = lapack.dstemr_lwork(diagonal, padded, 2, 0.0, 1.0, n - k + 1, n, compute_v=1)
        # Its arguments are its workspace.
        found, _, vectors, failed = lapack.dstemr(
            diagonal.copy(), padded.copy(), 2, 0.0, 1.0, n - k + 1, n,
            compute_v=1, lwork=int(sizes[0]), liwork=int(sizes[1]),
        )  # fmt: skip
        failed = failed or found != k
        vectors = vectors[:, :k]
    if failed:
        vectors = _safer_vectors(diagonal, beside)
    return vectors[:, vectors.shape[1] - k :]


def _safer_vectors(diagonal: Array, beside: Array) -> Array:
    try:
        return eigh_tridiagonal(diagonal, beside, lapack_driver="stev")[1]
    except np.linalg.LinAlgError as error:
        raise LinAlgError(str(error)) from error


def _roots(eigenvalues: Tensor) -> Tensor:
    return eigenvalues.flip(0).clamp_(min=0).sqrt_()
