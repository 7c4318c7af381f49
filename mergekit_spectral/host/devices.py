"""The device that an option names."""

from __future__ import annotations

import torch

from mergekit_spectral.errors import MergeError, first_line


def find_device(name: str | torch.device, elsewhere: bool = False) -> torch.device:
    """Return a device by its name. No memory of a GPU is used for that.

    Args:
        name: as PyTorch has it.
        elsewhere: whether the device is one of another machine, so that only the name is checked.

    Raises:
        MergeError: PyTorch has no such device.
    """
    try:
        device = torch.device(name)
        if device.type == "cuda" and not elsewhere:
            found = torch.cuda.device_count()
            if (device.index or 0) >= found:
                those = f"GPUs up to cuda:{found - 1}" if found else "no GPU"
                raise RuntimeError(f"PyTorch finds {those} on this machine")
        elif not elsewhere:
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MergeError(
            f"`--device` {name} cannot be used ({first_line(error)}); use cpu, or cuda with a "
            "PyTorch that was built for the GPU."
        ) from error
    return device
