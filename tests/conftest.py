"""Settings for all tests."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

# Two workers on two cores: more threads each only get in one another's way.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

# Examples are drawn the same in every run, so a red run is red again; deadlines depend on the
# machine, not on the code.
settings.register_profile("default", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("few", settings.get_profile("default"), max_examples=6)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
