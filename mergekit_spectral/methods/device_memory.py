"""What happens when a device runs out of memory: the merge goes on in smaller blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count

import torch

from mergekit_spectral.errors import MergeError
from mergekit_spectral.spectral.blocks import smaller_blocks

LOG = logging.getLogger(__name__)

_DIVISORS = (1, 8, 64)
_retries = count()


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
