"""Sign election and disjoint mean (TIES, arXiv 2306.01708, §3), and the plain weighted mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mergekit_spectral.spectral.numerics import TIE


def disjoint_mean(
    tensors: Sequence[Tensor], weights: Sequence[float], normalize: bool = True
) -> Tensor:
    """Elect a sign per entry by mass and average the inputs that carry it.

    The elected sign is that of Σ_t w_t·X_t. The result is Σ w_t·X_t / Σ w_t over the inputs whose
    w_t·X_t has the elected sign. Where the masses cancel exactly, no sign is elected and the result
    is 0: an arbitrary choice would depend on the arbitrary signs of singular vectors. For masses
    that cancel only up to rounding, see `without_cancelled_votes`.

    Args:
        tensors: T tensors of one shape.
        weights: T weights of any sign.
        normalize: if False, the sum is not divided. It never is where the weights that agree sum to
            zero, up to rounding.

    Returns:
        A new tensor of the same shape and dtype.
    """
    elected = _weighted_sum(tensors, weights).sign_()
    total = torch.zeros_like(elected)
    divisor = torch.zeros_like(elected)
    for tensor, weight in zip(tensors, weights, strict=True):
        weighted = tensor * weight
        agrees = weighted * elected
        torch.gt(agrees, 0, out=agrees)
        total.addcmul_(weighted, agrees)
        divisor.add_(agrees, alpha=weight)
    if not normalize:
        return total
    # Weights of one sign cannot cancel.
    mixed = min(weights) < 0 < max(weights)
    rounding = max(4 * torch.finfo(divisor.dtype).eps, TIE) if mixed else 0.0
    cancels = divisor.abs() <= rounding * sum(map(abs, weights))
    return total.div_(divisor.masked_fill_(cancels, 1))


def tally(tensors: Sequence[Tensor], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the sum of all votes, Σ w_t·X_t, and that of their magnitudes, Σ |w_t·X_t|.

    Args:
        tensors: T tensors of one shape.
        weights: T weights of any sign.
    """
    total, mass = (torch.zeros_like(tensors[0]) for _ in range(2))
    for tensor, weight in zip(tensors, weights, strict=True):
        vote = tensor * weight
        total.add_(vote)
        mass.add_(vote.abs_())
    return total, mass


def without_cancelled_votes(tensors: Sequence[Tensor], weights: Sequence[float]) -> list[Tensor]:
    """Zero all inputs where their votes cancel: |Σ w_t·X_t| ≤ `TIE` · Σ |w_t·X_t|.

    No sign is elected there.

    Args:
        tensors: T tensors of one shape, in float64.
        weights: T weights of any sign.
    """
    total, mass = tally(tensors, weights)
    return [tensor.masked_fill(total.abs() <= TIE * mass, 0) for tensor in tensors]


def weighted_mean(
    tensors: Sequence[Tensor], weights: Sequence[float], normalize: bool = True
) -> Tensor:
    """Return the mean Σ w_t·X_t / Σ w_t, or the bare sum (see `mean_weights`).

    Args:
        tensors: T tensors of one shape.
        weights: T weights of any sign.
        normalize: if False, the sum is not divided.
    """
    return _weighted_sum(tensors, mean_weights(weights, normalize))


def mean_weights(weights: Sequence[float], normalize: bool = True) -> list[float]:
    """Return w_t / Σ w_t, or w_t itself if not `normalize` or where the weights sum to zero.

    A sum within 1e-8 of the sum of magnitudes counts as zero, so weights may be of any size.
    mergekit's linear methods take any sum within 1e-8 of zero as zero.

    Args:
        weights: T weights.
        normalize: whether to divide by their sum.
    """
    total = sum(weights)
    magnitude = sum(map(abs, weights))
    divisor = total if normalize and abs(total) > 1e-8 * magnitude else 1.0
    return [weight / divisor for weight in weights]


def relative_weights(weights: Sequence[float], normalize: bool = True) -> list[float]:
    """Return the weights of a sum of updates, scaled so that their mean is 1.

    So only their ratios matter, and the size of the sum does not depend on whether a recipe's
    weights add up to 1 or to the number of inputs. Inputs of weight 0 do not count.

    Args:
        weights: T weights of any sign.
        normalize: if False, they are returned as they are. They always are where they sum to zero.
    """
    count = sum(weight != 0 for weight in weights)
    total = sum(weights)
    if not normalize or abs(total) <= 1e-8 * sum(map(abs, weights)):
        return list(weights)
    return [count * weight / total for weight in weights]


def relative_mean(
    tensors: Sequence[Tensor], weights: Sequence[float], normalize: bool = True
) -> Tensor:
    """Return the mean of ŵ_t·X_t over the inputs of nonzero weight, for relative weights ŵ.

    It is what stands beside a sum of matrices with `relative_weights`, for vectors and scalars,
    which have no directions to be kept apart.

    Args:
        tensors: T tensors of one shape.
        weights: T weights of any sign.
        normalize: see `relative_weights`.
    """
    relative = relative_weights(weights, normalize)
    count = max(1, sum(weight != 0 for weight in weights))
    return _weighted_sum(tensors, [weight / count for weight in relative])


def _weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total.add_(tensor, alpha=weight)
    return total
