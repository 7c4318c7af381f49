"""Workers that are killed while they merge."""

from __future__ import annotations

import signal

from mergekit_spectral.scaling import pools
from mergekit_spectral.scaling.parts import Part
from mergekit_spectral.scaling.pools import merge_in_worker
from mergekit_spectral.scaling.worker import Done


def killed_once(part: Part) -> Done:
    """Merge a part, but for the first time be killed."""
    try:
        (pools._job.folder / f"{part.number}.begun").touch(exist_ok=False)
    except FileExistsError:
        return merge_in_worker(part)
    signal.raise_signal(signal.SIGKILL)
    raise AssertionError


def killed_always(part: Part) -> Done:
    """Be killed."""
    signal.raise_signal(signal.SIGKILL)
    raise AssertionError
