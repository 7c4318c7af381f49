"""Whole merges by mergekit, and tensors on disk in its format."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from mergekit.config import MergeConfiguration
from mergekit.io.lazy_tensor_loader import LazyTensorLoader, ShardedTensorIndex
from mergekit.io.tensor_writer import TensorWriter
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from torch import Tensor

from mergekit_spectral.host.loaders import lend_loaders
from mergekit_spectral.host.model_card import cards_that_others_can_use
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.whole_files import errors_as_sentences

SHARD_BYTES = 250 * 10**6
"""Tensors that are kept for a while are written when they add up to this: few are in memory."""


def merge_into(
    folder: Path, config: MergeConfiguration, options: MergeOptions, source: str | None = None
) -> None:
    """Have mergekit merge a recipe, as ``mergekit-yaml`` does, and close the files that it opens.

    Names of local folders are not looked up on the hub, whatever the method.

    Args:
        folder: for the merged model.
        config: the recipe.
        options: mergekit's.
        source: the recipe's text, for the model card.

    Raises:
        MergeError: the folder cannot be written to, or one of our methods refuses the recipe.
    """
    with errors_as_sentences(folder), lend_loaders(options), cards_that_others_can_use():
        run_merge(config, str(folder), options, config_source=source)


def make_copies(merge: PlannedMerge) -> None:
    """Have mergekit merge LoRA inputs into copies of their bases, where the merge reads those.

    The copies go to the options' ``lora_merge_cache``. Those that are there are kept.
    """
    with lend_loaders(merge.options) as table:
        for model in merge.copied:
            table.open(model)


class StoredTensors:
    """Tensors on disk, which are read one at a time.

    Args:
        folder: written by `write`, or by mergekit.
    """

    def __init__(self, folder: Path):
        self._loader = LazyTensorLoader(ShardedTensorIndex.from_disk(str(folder)))
        self.names = list(self._loader.index.tensor_paths)

    def read(self, name: str) -> Tensor:
        """Return a tensor, on the CPU."""
        tensor = self._loader.get_tensor(name)
        assert tensor is not None
        return tensor

    @classmethod
    def write(cls, folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> StoredTensors:
        """Write tensors, which may be made one by one, to a folder that appears when it is whole.

        Raises:
            MergeError: the folder cannot be written to.
        """
        unfinished = folder.with_name(folder.name + ".unfinished")
        try:
            with errors_as_sentences(folder):
                shutil.rmtree(unfinished, ignore_errors=True)
                writer = TensorWriter(str(unfinished), max_shard_size=SHARD_BYTES)
                for name, tensor in tensors:
                    writer.save_tensor(name, tensor.detach().cpu(), clone=True)
                writer.finalize()  # type: ignore[no-untyped-call]
                unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return cls(folder)
