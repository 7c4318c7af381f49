"""The range of the dtype that mergekit saves a merged tensor in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from mergekit import merge_methods
from mergekit.common import dtype_from_name
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
from torch import Tensor

from mergekit_spectral.methods import SpectralMethod

Save = Callable[[Any, Any, Tensor | None], None]


def check_range_of_saved_tensors(tasks: ModuleType) -> None:
    """Refuse tensors of our methods that ``out_dtype`` has no range for, when they are saved.

    A method does not see ``out_dtype``: mergekit casts after it, and writes what became infinite.

    Args:
        tasks: the module ``mergekit.io.tasks``.
    """
    tasks.SaveTensor.execute = _checked(tasks.SaveTensor.execute)


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

    return execute
