"""Eigenvalues and leading eigenvectors, from every algorithm and every fallback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import lapack
from support.matrices import gaussian
from torch import Tensor

from mergekit_spectral.spectral.svd import eigen
from mergekit_spectral.spectral.svd.eigen import leading_eigenvectors
from mergekit_spectral.spectral.svd.joint import LinAlgError

DTYPES = [torch.float32, torch.float64]


def matrix(n: int, columns: int | None = None) -> Tensor:
    """Return M, [n, columns], with singular values from about 1 to 1e-3. Tests use M·Mᵀ."""
    M = gaussian((n, columns or n + 5), 1)[0]
    return M * torch.logspace(0, -3, n, dtype=torch.float64)[:, None]


def check(M: Tensor, k: int, dtype: torch.dtype, few: bool = True) -> None:
    gram = (M @ M.T).triu()  # the algorithms must not read the lower triangle
    vectors, values = leading_eigenvectors(gram, lambda values: k, dtype, few)
    expected = torch.linalg.svdvals(M)
    eps = torch.finfo(dtype).eps
    n = len(M)
    torch.testing.assert_close(values[: len(expected)], expected, rtol=1e-8, atol=1e-8)
    assert vectors.shape == (n, k)
    assert vectors.dtype in (dtype, torch.float64)
    identity = torch.eye(k, dtype=vectors.dtype)
    torch.testing.assert_close(vectors.T @ vectors, identity, rtol=0, atol=300 * eps)
    # Vᵀ·M·Mᵀ·V is diagonal, with the squared singular values on the diagonal.
    V = vectors.double()
    core = V.T @ (M @ M.T) @ V
    squares = values[:k].square().diag()
    torch.testing.assert_close(core, squares, rtol=0, atol=100 * eps * float(values[0] ** 2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 2, 64, 65, 150])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("few", [False, True])
def test_vectors_and_values(n: int, share: float, few: bool, dtype: torch.dtype):
    check(matrix(n), round(share * n), dtype, few)


def test_matrices_of_medium_size_in_several_threads(monkeypatch: pytest.MonkeyPatch):
    """PyTorch decomposes them as a whole; SciPy, in one thread and where few vectors are kept."""
    monkeypatch.setattr(eigen, "_MEDIUM", 149)
    steps: list[bool] = []
    by_steps = eigen._by_steps
    monkeypatch.setattr(eigen, "_by_steps", lambda *args: steps.append(True) or by_steps(*args))
    for threads, few, taken in ((2, False, False), (1, False, True), (2, True, True)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        steps.clear()
        check(matrix(150), 150 if not few else 30, torch.float64, few)
        assert bool(steps) == taken


def test_large_matrices_are_decomposed_in_steps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(eigen, "_MEDIUM", 149)
    monkeypatch.setattr(eigen, "threads_compete", lambda _side: False)
    monkeypatch.setattr(eigen, "_LARGE", 149)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    check(matrix(150), 150, torch.float32, few=False)


def test_matrices_that_are_not_large_keep_the_precision_of_float64(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(eigen, "_MEDIUM", 149)
    monkeypatch.setattr(eigen, "threads_compete", lambda _side: False)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    M = matrix(150)
    vectors, _ = leading_eigenvectors(M @ M.T, len, torch.float32)
    assert vectors.dtype == torch.float64


def test_vectors_by_relatively_robust_representations(monkeypatch: pytest.MonkeyPatch):
    """This algorithm is used for the largest matrices, and for all with scipy before 1.16."""
    monkeypatch.setattr(eigen, "_MEDIUM", 0)
    monkeypatch.setattr(eigen, "threads_compete", lambda _side: False)
    monkeypatch.setattr(eigen, "_LARGE", 0)
    monkeypatch.setattr(eigen, "_DIVIDE_AND_CONQUER", 0)
    check(matrix(150), 150, torch.float32, few=False)


def test_matrix_of_low_rank():
    check(matrix(150, columns=20), 20, torch.float64)


def test_repeated_singular_values():
    check(torch.linalg.qr(matrix(100)).Q, 30, torch.float64)


def test_zero_matrix_has_no_directions():
    gram = torch.zeros(100, 100, dtype=torch.float64)
    vectors, values = leading_eigenvectors(gram, lambda values: 100, torch.float32)
    assert vectors.shape == (100, 0)
    assert not values.any()


def make_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make a function of LAPACK report that it did not converge; return a list of its calls."""
    function = getattr(lapack, name)
    calls = []

    def failed(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        *results, _ = function(*args, **kwargs)
        return (*(np.nan * np.asarray(result, float) for result in results), 1)

    monkeypatch.setattr(lapack, name, failed)
    return calls


@pytest.mark.parametrize(("name", "k"), [("dsterf", 10), ("dstemr", 10), ("dstevd", 100)])
def test_fallback_if_a_step_does_not_converge(name: str, k: int, monkeypatch: pytest.MonkeyPatch):
    if not hasattr(lapack, name):
        name = "dstemr"
    calls = make_fail(name, monkeypatch)
    monkeypatch.setattr(eigen, "_MEDIUM", 0)
    monkeypatch.setattr(eigen, "threads_compete", lambda _side: False)
    monkeypatch.setattr(eigen, "_LARGE", 0)
    check(matrix(100), k, torch.float64, few=k < 100)
    assert calls


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LinAlgError("eigh: failed to converge"), "eigh: failed to converge"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "CUDA out of memory"),
    ],
)
def test_fallback_to_steps_if_eigh_fails(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    eigen._log_once.cache_clear()
    for _ in range(2):
        check(matrix(100), 100, torch.float64, few=False)
    (message,) = caplog.messages
    assert message.endswith(f": {reason}")


def test_error_if_no_algorithm_converges(monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any, **__: Any) -> None:
        raise np.linalg.LinAlgError("stev did not converge")

    make_fail("dstemr", monkeypatch)
    monkeypatch.setattr(eigen, "eigh_tridiagonal", fails)
    with pytest.raises(LinAlgError, match="stev did not converge"):
        check(matrix(100), 10, torch.float64)


def test_squares_out_of_range():
    M = 1e200 * torch.ones(3, 3, dtype=torch.float64)
    with pytest.raises(LinAlgError, match="out of float64's range"):
        leading_eigenvectors(M @ M.T, len, torch.float64)
