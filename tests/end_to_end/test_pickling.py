"""Methods and planned merges in another process, as Ray and multiprocessing send them there."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from mergekit.architecture import get_architecture_info
from mergekit.config import MergeConfiguration
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import TensorGroup
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner
from support.checkpoints import Family
from support.expected import assert_merged
from support.interpreters import run
from support.matrices import gaussian
from support.recipe_builders import recipe

from mergekit_spectral.methods import SpectralMethod

EXECUTE = """
import pickle, sys
tasks = pickle.load(sys.stdin.buffer)
from mergekit.graph import Executor
Executor(tasks).execute()
"""

CALL = """
import pickle, sys
methods, group = pickle.load(sys.stdin.buffer)
import torch
torch.set_num_threads(1)
merged = {}
for method in methods:
    torch.manual_seed(0)
    (merged[method.spec.name],) = method((group,), parameters={})
pickle.dump(merged, sys.stdout.buffer)
"""


def test_a_planned_merge(llama: Family, out: Path):
    config = MergeConfiguration.model_validate(recipe("drm", llama))
    options = MergeOptions()
    architecture = get_architecture_info(config, options)
    assert config.base_model is not None
    planner = MergePlanner(config, architecture, options, config.base_model.config())
    run(EXECUTE, stdin=pickle.dumps(planner.plan_to_disk(str(out))))
    (out / "config.json").write_bytes((llama.base / "config.json").read_bytes())
    assert_merged(out, llama, "drm")


def test_methods():
    ours = [method for method in registered_methods() if isinstance(method, SpectralMethod)]
    tensors = [tensor.float() for tensor in gaussian((6, 8), 4)]
    group = TensorGroup.from_tensors(tensors, ids=list("0123"), base_index=0, name="x.weight")
    merged = pickle.loads(run(CALL, stdin=pickle.dumps((ours, group))).stdout)
    assert merged.keys() == {method.spec.name for method in ours}
    for method in ours:
        torch.manual_seed(0)
        (here,) = method((group,), parameters={})
        torch.testing.assert_close(merged[method.spec.name], here)
