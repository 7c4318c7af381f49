"""Settings for all tests."""

from __future__ import annotations

import os

# Two workers on two cores: more threads each only get in one another's way. The libraries read this
# when they are imported, also in processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # xdist gives its workers a width of 80, and then wide tables are not in Markdown.
    os.environ.pop("COLUMNS", None)

import torch
from hypothesis import settings

if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(2)

# Examples are drawn the same in every run, so a red run is red again; deadlines depend on the
# machine, not on the code.
settings.register_profile("default", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("few", settings.get_profile("default"), max_examples=6)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
