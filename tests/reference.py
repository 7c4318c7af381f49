"""Definitions of all methods in plain float64. Tests compare the package with them.

The code is written so that it can be compared with the papers line by line: `torch.linalg.svd` on
the whole concatenation, one line per step, no optimizations. Every function takes T deltas of shape
[out, in] and returns the merged delta, [out, in]. The benchmarks also time the definitions in
float32, in which published code computes.

Rounding must not decide a result. `tie` gives the relative size below which a difference counts as
rounding noise. It is used in three rules:

- A magnitude that differs from the threshold by less than this share of the threshold is equal to
  the threshold. Entries equal to the threshold are kept.
- If the sum of the inputs' votes for a sign is smaller than this share of the votes' total size,
  the votes cancel, and no sign is elected. If weights cancel in the same way, sums are not divided
  by the sum of the weights.
- A coordinate that is smaller than this share of the norm of its delta's column is zero. It does
  not vote, and in DRM it does not contribute to the length of its row.
- Singular values that differ from the last of the `rank` largest by less than this share of the
  largest are kept with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import torch
from torch import Tensor

Deltas = Sequence[Tensor]


def tie(dtype: torch.dtype) -> float:
    """Return the relative size below which a difference is rounding noise."""
    return 1e-9 if dtype == torch.float64 else 1e-6


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return ‖actual − expected‖ / ‖expected‖ in float64, or ‖actual‖ if `expected` is zero."""
    difference = torch.linalg.vector_norm(actual.double() - expected.double())
    size = torch.linalg.vector_norm(expected.double())
    return float(difference / size) if size > 0 else float(difference)


def drm(
    deltas: Deltas,
    density: float | Sequence[float] = 0.2,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    lam: float = 1.0,
    direction: str = "horizontal",
    rank_tolerance: float = 0.01,
    rank: float | None = None,
    renormalize: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    def merge(C: list[Tensor]) -> Tensor:
        lengths = [c.norm(dim=1, keepdim=True) for c in C]  # s_i·n_{t,i}
        if not renormalize:
            s = torch.cat(C, dim=1).norm(dim=1, keepdim=True)
            lengths = [s] * len(C)  # then the rows are the rows of V_tᵀ
        rows = [
            c / length.masked_fill(length == 0, 1) for c, length in zip(C, lengths, strict=True)
        ]
        pruned = prune(rows, density)
        X = [length * row for length, row in zip(lengths, pruned, strict=True)]
        return elect_and_average(X, weights, normalize)

    return lam * in_joint_basis(deltas, merge, direction, rank_tolerance, rank, dtype)


def knots_ties(
    deltas: Deltas,
    density: float = 1.0,
    weights: Sequence[float] | None = None,
    lam: float = 1.0,
    direction: str = "horizontal",
    rank_tolerance: float = 1e-5,
    rank: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    def merge(C: list[Tensor]) -> Tensor:
        return elect_and_average([trim(c, density) for c in C], weights)

    return lam * in_joint_basis(deltas, merge, direction, rank_tolerance, rank, dtype)


def knots_breadcrumbs(
    deltas: Deltas,
    density: float = 1.0,
    gamma: float = 0.01,
    lam: float = 1.0,
    direction: str = "horizontal",
    rank_tolerance: float = 1e-5,
    rank: float | None = None,
) -> Tensor:
    def merge(C: list[Tensor]) -> Tensor:
        return torch.stack([trim_outliers(c, density, gamma) for c in C]).sum(0)

    return lam * in_joint_basis(deltas, merge, direction, rank_tolerance, rank)


def star(
    deltas: Deltas,
    eta: float | Sequence[float] = 40.0,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    lam: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    etas = [eta] * len(deltas) if isinstance(eta, int | float) else list(eta)
    weights = [1.0] * len(deltas) if weights is None else weights
    merged = sum(w * truncate(D, e, dtype) for w, D, e in zip(weights, deltas, etas, strict=True))
    return lam * merged / (sum(weights) if normalize else 1.0)


def truncate(delta: Tensor, eta: float, dtype: torch.dtype = torch.float64) -> Tensor:
    U, s, Vh = torch.linalg.svd(delta.to(dtype), full_matrices=False)
    if s.sum() == 0:
        return torch.zeros_like(delta, dtype=dtype)
    total = s.cumsum(0)
    r = int((total >= (1 - tie(dtype)) * eta / 100 * total[-1]).nonzero()[0]) + 1
    return (U[:, :r] * s[:r]) @ Vh[:r] * s.sum() / s[:r].sum()


def iso(
    deltas: Deltas,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    lam: float = 1.0,
    rank_tolerance: float = 0.05,
    flatten: float = 0.75,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    weights = relative_weights(weights or [1.0] * len(deltas), normalize)
    total = sum(w * D.to(dtype) for w, D in zip(weights, deltas, strict=True))
    U, s, Vh = svd(total, rank_tolerance)
    flat = s ** (1 - flatten)
    return lam * (U * flat * s.norm() / flat.norm()) @ Vh


def tsvm(
    deltas: Deltas,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    lam: float = 1.0,
    share: float | Sequence[float] = 1.0,
    rank_tolerance: float = 0.05,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    T = len(deltas)
    weights = relative_weights(weights or [1.0] * T, normalize)
    shares = [share] * T if isinstance(share, int | float) else list(share)
    U_hat, S_hat, V_hat = [], [], []
    for D, w, p in zip(deltas, weights, shares, strict=True):
        U, s, Vh = svd(D.to(dtype), rank_tolerance)
        k = max(1, int(p * min(D.shape) / T))
        U_hat.append(U[:, :k])
        S_hat.append(w * s[:k])
        V_hat.append(Vh[:k].T)
    U, V = (
        nearest_orthonormal(torch.cat(U_hat, dim=1)),
        nearest_orthonormal(torch.cat(V_hat, dim=1)),
    )
    return lam * (U * torch.cat(S_hat)) @ V.T


def actmat(
    deltas: Deltas,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    lam: float = 1.0,
    direction: str = "auto",
    rank_tolerance: float = 0.1,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    if is_horizontal(direction, deltas[0]):
        transposed = [D.T for D in deltas]
        return actmat(transposed, weights, normalize, lam, "vertical", rank_tolerance, dtype).T
    weights = relative_weights(weights or [1.0] * len(deltas), normalize)
    lam *= 1.0 if normalize else sum(map(abs, weights)) / max(1, sum(w != 0 for w in weights))
    D = [delta.to(dtype) for delta in deltas]
    C = [d.T @ d for d in D]
    moments = sum(w * d @ c for w, d, c in zip(weights, D, C, strict=True))
    # Σ |w_t|·C_t = V·diag(s²)·Vᵀ, and its pseudo-inverse on the kept directions.
    stacked = torch.cat([abs(w) ** 0.5 * d for w, d in zip(weights, D, strict=True)])
    _, s, Vh = svd(stacked, rank_tolerance)
    return lam * moments @ (Vh.T / s.square()) @ Vh


def relative_weights(weights: Sequence[float], normalize: bool) -> list[float]:
    total = sum(weights)
    cancels = abs(total) <= 1e-8 * sum(map(abs, weights))
    return [w if cancels or not normalize else w * len(weights) / total for w in weights]


def svd(delta: Tensor, rank_tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    U, s, Vh = torch.linalg.svd(delta, full_matrices=False)
    k = int((s > (1 + tie(s.dtype)) * rank_tolerance * s[0]).sum())
    return U[:, :k], s[:k], Vh[:k]


def nearest_orthonormal(X: Tensor) -> Tensor:
    U, s, Vh = torch.linalg.svd(X, full_matrices=False)
    k = int((s > 1e-6 * s[0]).sum())  # of dependent columns, the nearest partial isometry
    return U[:, :k] @ Vh[:k]


def elementwise_drm(
    deltas: Deltas,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    lam: float = 1.0,
) -> Tensor:
    return lam * elect_and_average([D.double() for D in deltas], weights, normalize)


def in_joint_basis(
    deltas: Deltas,
    merge: Callable[[list[Tensor]], Tensor],
    direction: str,
    rank_tolerance: float,
    rank: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Merge the inputs' coordinates in their joint basis, and convert the result to weights."""
    if is_horizontal(direction, deltas[0]):
        U, C = joint_svd([D.to(dtype) for D in deltas], rank_tolerance, rank)
        return U @ merge(C)
    U, C = joint_svd([D.to(dtype).T for D in deltas], rank_tolerance, rank)
    return (U @ merge(C)).T


def is_horizontal(direction: str, delta: Tensor) -> bool:
    out_features, in_features = delta.shape
    return direction == "horizontal" or (direction == "auto" and out_features <= in_features)


def joint_svd(
    deltas: Deltas, rank_tolerance: float, rank: float | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Return U [out, k], and T matrices of coordinates diag(s)·V_tᵀ = Uᵀ·D_t, [k, in] each."""
    U, s, _ = torch.linalg.svd(torch.cat(list(deltas), dim=1), full_matrices=False)
    kept = s > (1 + tie(s.dtype)) * rank_tolerance * s[0]
    # A float is a share: 1.0 is all directions, 1 is one.
    k = ceil(rank * len(U) - 1e-9) if isinstance(rank, float) else rank
    if k is not None and k < len(s):
        kept &= s >= s[k - 1] - tie(s.dtype) * s[0]
    U = U[:, kept]
    C = [U.T @ D for D in deltas]
    return U, [
        torch.where(c.abs() <= tie(D.dtype) * D.norm(dim=0), 0, c)
        for c, D in zip(C, deltas, strict=True)
    ]


def prune(rows: Sequence[Tensor], density: float | Sequence[float]) -> list[Tensor]:
    if isinstance(density, int | float):
        density = [density] * len(rows)
    if len(set(density)) > 1:
        return [prune([row], p)[0] for row, p in zip(rows, density, strict=True)]
    magnitudes = torch.cat([row.abs().flatten() for row in rows])
    N = magnitudes.numel()
    j = N - round(N * density[0])
    threshold = magnitudes.kthvalue(j).values if j > 0 else 0.0
    return [torch.where(row.abs() < (1 - tie(row.dtype)) * threshold, 0, row) for row in rows]


def trim(coordinates: Tensor, density: float) -> Tensor:
    """Trim as TIES: keep the int(p·N) largest entries, and all entries equal to the smallest kept.

    At least one entry is kept.
    """
    kept = min(coordinates.numel(), max(1, int(density * coordinates.numel())))
    threshold = coordinates.abs().flatten().topk(kept).values[-1]
    return torch.where(coordinates.abs() < (1 - tie(coordinates.dtype)) * threshold, 0, coordinates)


def trim_outliers(coordinates: Tensor, density: float, gamma: float) -> Tensor:
    """Trim as Breadcrumbs: drop the int(γ·N) largest of N entries, keep the next int(p·N) largest.

    If fewer than int(p·N) entries remain below the dropped ones, fewer of the largest are dropped.
    """
    N = coordinates.numel()
    kept, outliers = int(density * N), int(gamma * N)
    if density >= 1 or kept == 0:
        return coordinates if density >= 1 else torch.zeros_like(coordinates)
    smallest = max(0, N - kept - outliers)
    in_order = coordinates.abs().flatten().sort().values
    low, high = in_order[smallest], in_order[smallest + kept - 1]
    magnitudes = coordinates.abs()
    rounding = tie(coordinates.dtype)
    inside = (magnitudes >= (1 - rounding) * low) & (magnitudes <= (1 + rounding) * high)
    return torch.where(inside, coordinates, 0)


def elect_and_average(
    X: Sequence[Tensor], weights: Sequence[float] | None = None, normalize: bool = True
) -> Tensor:
    weights = [1.0] * len(X) if weights is None else weights
    weighted = [w * x for w, x in zip(weights, X, strict=True)]
    elected = torch.where(cancel(weighted), 0, torch.stack(weighted).sum(0).sign())
    agrees = [(x.sign() == elected) & (x != 0) for x in weighted]
    total = sum(torch.where(a, x, 0) for a, x in zip(agrees, weighted, strict=True))
    mass = sum(w * a.to(X[0].dtype) for a, w in zip(agrees, weights, strict=True))
    cancels = mass.abs() <= tie(mass.dtype) * sum(map(abs, weights))
    return total / torch.where(cancels, 1, mass) if normalize else total


def cancel(votes: Sequence[Tensor]) -> Tensor:
    """Return where the sum of the votes w_t·X_t is zero up to rounding, as a boolean tensor."""
    stacked = torch.stack(list(votes))
    return stacked.sum(0).abs() <= tie(stacked.dtype) * stacked.abs().sum(0)


def projected_onto_shared_bases(
    deltas: Deltas, rank: int, weights: Sequence[float] | None = None
) -> tuple[list[Tensor], float]:
    """Return U·Uᵀ·D_t·V·Vᵀ for all t, and the share that is kept; compress then merge.

    Three times, U are the leading left singular vectors of [N_1·V … N_T·V], and V those of
    [N_1ᵀ·U … N_Tᵀ·U], with N_t = w_t·D_t/‖D_t‖. At first, V is the whole space.
    """
    weights = [1.0] * len(deltas) if weights is None else weights
    N = [w * D / D.norm() if D.norm() > 0 else D for w, D in zip(weights, deltas, strict=True)]
    V = leading_vectors([n.T for n in N], rank)
    for _ in range(3):
        U = leading_vectors([n @ V for n in N], rank)
        V = leading_vectors([n.T @ U for n in N], rank)
    kept = sum((U.T @ n @ V).square().sum() for n in N) / sum(n.square().sum() for n in N)
    return [U @ U.T @ D @ V @ V.T for D in deltas], float(kept)


def leading_vectors(matrices: Sequence[Tensor], rank: int) -> Tensor:
    U, s, _ = torch.linalg.svd(torch.cat(list(matrices), dim=1), full_matrices=False)
    return U[:, : min(rank, int((s > 1e-6 * s[0]).sum()))]


DEFINITIONS: dict[str, Callable[..., Tensor]] = {
    "drm": drm,
    "knots_ties": knots_ties,
    "star": star,
    "iso": iso,
    "tsvm": tsvm,
    "actmat": actmat,
}
"""The definitions by the methods' names in recipes."""
