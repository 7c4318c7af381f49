"""Workers that take their time, so that something can happen to them."""

from __future__ import annotations

import time

from mergekit_spectral.scaling.parts import Part
from mergekit_spectral.scaling.pools import merge_in_worker
from mergekit_spectral.scaling.worker import Done, Job, merge_part


def merge_slowly(job: Job, part: Part) -> Done:
    """Merge a part after a while."""
    time.sleep(0.3)
    return merge_part(job, part)


def merge_slowly_in_worker(part: Part) -> Done:
    """Merge a part in a process of a pool, after a while."""
    time.sleep(0.3)
    return merge_in_worker(part)
