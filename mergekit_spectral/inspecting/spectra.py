"""What singular values tell of an update."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(spectrum: Tensor) -> float:
    """Return the exponential of the entropy of singular values as shares of their sum.

    Roy and Vetterli, «The effective rank», 2007. It is n for n equal ones.

    Args:
        spectrum: singular values, [n], not all zero.
    """
    shares = spectrum[spectrum > 0] / spectrum.sum()
    return float((-(shares * shares.log()).sum()).exp())


def stable_rank(spectrum: Tensor) -> float:
    """Return ‖D‖_F² / s_1², from 1 to n.

    Args:
        spectrum: singular values, [n], descending, not all zero.
    """
    return float(torch.sum((spectrum / spectrum[0]) ** 2))
