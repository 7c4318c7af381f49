"""The range of the dtype that mergekit saves a merged tensor in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from mergekit import merge_methods
from mergekit.common import dtype_from_name
from mergekit.io.tasks import SaveTensor
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
from torch import Tensor

from mergekit_spectral.methods import SpectralMethod

Save = Callable[[Any, Any, Tensor | None], None]


def check_range_of_saved_tensors() -> None:
    """Refuse tensors of our methods that ``out_dtype`` has no range for, when they are saved.

    A method does not see ``out_dtype``: mergekit casts after it, and writes what became infinite.
    Calling it again does nothing. It is not undone after a merge: another thread may be in one.
    """
    if not hasattr(SaveTensor.execute, "checks_range"):
        SaveTensor.execute = _checked(SaveTensor.execute)  # type: ignore[method-assign, assignment]


def _checked(save: Save) -> Save:
    @wraps(save)
    def execute(self: Any, writer: Any, tensor: Tensor | None) -> None:
        dtype = dtype_from_name(self.dtype)
        task = self.tensor_task
        if tensor is not None and dtype and isinstance(task, ExecuteMergeMethodTask):
            method = merge_methods.get(task.method_name)
            if isinstance(method, SpectralMethod):
                tensor = method.rounded(tensor, dtype, self.tensor_name)
        save(self, writer, tensor)

    execute.checks_range = True  # type: ignore[attr-defined]
    return execute
