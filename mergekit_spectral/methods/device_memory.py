"""What is done where a device has little memory.

Inputs that fill it stay in main memory, and blocks of them are moved; where even that is too much,
the merge goes on in smaller blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import torch
from mergekit.merge_methods.base import TensorGroup

from mergekit_spectral.errors import MergeError
from mergekit_spectral.spectral.blocks import smaller_blocks
from mergekit_spectral.spectral.deferred import HostTensor

LOG = logging.getLogger(__name__)

_INPUTS_SHARE = 4  # the rest of what is free is for the decomposition, which takes the most
_DIVISORS = (1, 8, 64)
_retries = count()


def moved_if_small(group: TensorGroup, device: torch.device) -> TensorGroup:
    """Move inputs that were left in main memory to the device, if they fill little of it.

    They are read twice or more, so to move them once is faster.
    """
    size = sum(e.tensor.nbytes for e in group.entries if isinstance(e.tensor, HostTensor))
    if size == 0 or (device.type == "cuda" and size > _free_bytes(device) // _INPUTS_SHARE):
        return group
    entries = (
        replace(entry, tensor=entry.tensor.to_dense_tensor())
        if isinstance(entry.tensor, HostTensor)
        else entry
        for entry in group.entries
    )
    return TensorGroup(tuple(entries), group.metadata)


def _free_bytes(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def in_blocks_that_fit(merge: Callable[[], None], name: str | None) -> None:
    """Merge one tensor; if the device's memory does not suffice, again in smaller blocks.

    Args:
        merge: may be called several times; each call overwrites what the last one wrote.
        name: of the tensor, for messages.

    Raises:
        MergeError: if the smallest blocks are too large.
    """
    for divisor in _DIVISORS:
        try:
            with smaller_blocks(divisor):
                merge()
        except torch.OutOfMemoryError:
            # Nothing more in here: the traceback keeps alive what the attempt allocated.
            pass
        else:
            return
        if next(_retries) == 0:
            LOG.warning(
                "The device is out of memory at tensor %s; the merge goes on in smaller blocks, "
                "there and wherever it is needed.",
                name,
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise MergeError(
        f"The device has too little memory for tensor {name}, even in small blocks; merge without "
        "--cuda, on a device with more memory, or fewer models at a time."
    )
