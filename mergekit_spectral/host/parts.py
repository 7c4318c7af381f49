"""A merge in parts: some of its tensors at a time, and a model put together from such parts.

Both follow mergekit's own plan, so that the files are those that mergekit would write. What
`run_merge` does besides tensors (configuration, tokenizer, model card), it does itself, after the
first time with one more change: the name `mergekit.merge.Executor` is replaced for the rest of the
process. For other merges it stands for what it did before.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import transformers
from mergekit import merge
from mergekit.architecture import get_architecture_info
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor, Task
from mergekit.io.tasks import FinalizeModel, SaveTensor, TensorWriterTask
from mergekit.io.tensor_writer import TensorWriter
from mergekit.options import MergeOptions
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.loaders import Loader, lend_loaders
from mergekit_spectral.host.model_card import cards_that_others_can_use
from mergekit_spectral.host.plan import plan_saves
from mergekit_spectral.host.recipe_check import find_method
from mergekit_spectral.host.run_merge import spectral_merge
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.whole_files import flush

FILE = "model.safetensors"
"""What mergekit calls the only file of a model."""


class PartMerger:
    """Merges any tensors of a recipe, each as mergekit would in a merge of the whole model.

    It is a context manager: between entering and leaving, the models' files are open, and mergekit
    reads them through our loaders.

    Args:
        config: the recipe.
        options: mergekit's.
        seed: of methods that draw at random. They draw anew for each tensor, so that the result
            does not depend on what was merged before.

    Attributes:
        is_spectral: whether the method is one of ours.
    """

    def __init__(self, config: MergeConfiguration, options: MergeOptions, seed: int):
        self._config, self._options, self._seed = config, options, seed
        self._method = find_method(config.merge_method)
        self.is_spectral = isinstance(self._method, SpectralMethod)
        self._lent = ExitStack()
        self._saves: dict[str, SaveTensor] = {}

    def __enter__(self) -> PartMerger:
        """Open the models and have mergekit plan the merge.

        Raises:
            MergeError: the recipe or a model is wrong.
        """
        with ExitStack() as lent:
            config, options = self._config.model_copy(deep=True), self._options
            if isinstance(self._method, SpectralMethod):
                lent.enter_context(spectral_merge(self._method, config, options))
            else:
                lent.enter_context(lend_loaders(options))
            with _errors_as_sentences("cannot plan this merge"):
                saves = plan_saves(config, get_architecture_info(config, options), options)
            self._saves = {save.tensor_name: save for save in saves}
            self._lent = lent.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        """Close the models."""
        self._lent.close()

    def merge(self, names: Collection[str], folder: Path) -> Path:
        """Merge tensors and write them.

        Args:
            names: the tensors', in the merged model.
            folder: an empty folder.

        Returns:
            The file. It lacks tensors that no input has and the architecture does not demand.

        Raises:
            MergeError: an input is wrong, or mergekit fails.
        """
        wanted: dict[Task[Any], list[SaveTensor]] = defaultdict(list)
        for name in names:
            wanted[self._saves[name].tensor_task].append(self._saves[name])
        device = torch.device(self._options.device or "cpu")
        stored_on = device if self._options.low_cpu_memory else torch.device("cpu")
        executor = Executor(list(wanted), math_device=device, storage_device=stored_on)
        order = [handle.task() for handle in executor.schedule.tasks if handle in executor.targets]
        writer = TensorWriter(str(folder), max_shard_size=-1)
        merged = executor.run(quiet=True)
        for task in order:
            name = wanted[task][0].tensor_name
            transformers.set_seed(_seed_of(name, self._seed))
            with _errors_as_sentences(f"cannot merge tensor {name}"):
                _, tensor = next(merged)
                for save in wanted[task]:
                    save.execute(writer=writer, tensor=tensor)
        with _errors_as_sentences("cannot end a part"):
            next(merged, None)
        writer.finalize()  # type: ignore[no-untyped-call]
        file = folder / FILE
        if not file.exists():  # for want of tensors
            save_file({}, file)
        return file


def _seed_of(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


@contextmanager
def _errors_as_sentences(what: str) -> Iterator[None]:
    try:
        yield
    except (MergeError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # mergekit's methods raise many
        raise MergeError(f"mergekit {what}: {first_line(error)}.") from error


def tensors_in(file: Path) -> frozenset[str]:
    """Return the names of a file's tensors.

    Raises:
        SafetensorError: the file is not whole.
    """
    with safe_open(file, framework="pt") as opened:
        return frozenset(opened.keys())


def assemble(
    folder: Path,
    config: MergeConfiguration,
    options: MergeOptions,
    source: str,
    loaders: Mapping[ModelReference, Loader],
    files: Sequence[Path],
    release: Callable[[Path], None],
) -> None:
    """Write a merged model whose tensors are merged already, as mergekit's `run_merge` would.

    Shards of an earlier attempt that are in the folder are taken over.

    Args:
        folder: for the model.
        config: the recipe.
        options: mergekit's.
        source: the recipe's text, for the model card.
        loaders: for all models of the recipe. Only the names of their tensors are used.
        files: that together have all merged tensors, each once.
        release: is called with a file as soon as all of its tensors are in shards.
    """
    names = vars(merge)
    if not hasattr(names["Executor"], "assembles"):
        names["Executor"] = _executor(names["Executor"])
    token = _parts.set(_Parts(files, release))
    try:
        with lend_loaders(options, loaders), cards_that_others_can_use():
            # Without what surrounds our methods' merges: the inputs were read before.
            inspect.unwrap(merge.run_merge)(config, str(folder), options, config_source=source)
    finally:
        _parts.reset(token)


class _Parts:
    """Files with merged tensors, which are removed as soon as they are not needed."""

    def __init__(self, files: Sequence[Path], release: Callable[[Path], None]):
        self._release = release
        self._left = {file: set(tensors_in(file)) for file in files}
        self.file_of = {name: file for file, names in self._left.items() for name in names}

    def read(self, name: str) -> Tensor:
        with safe_open(self.file_of[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)  # mapped, not copied
        return tensor

    def are_written(self, names: Collection[str]) -> None:
        for name in names:
            file = self.file_of[name]
            self._left[file].discard(name)
            if not self._left[file]:
                self._release(file)


_parts: ContextVar[_Parts | None] = ContextVar("_parts", default=None)


def _executor(original: type[Executor]) -> Callable[..., Any]:
    def executor(targets: list[Task[Any]], *args: Any, **kwargs: Any) -> Any:
        usual = original(targets, *args, **kwargs)
        parts = _parts.get()
        return usual if parts is None else _Assembly(usual, parts)

    executor.assembles = True  # type: ignore[attr-defined]
    return executor


class _Assembly:
    """Does in the place of mergekit's executor what it would do, with tensors that are merged.

    Args:
        executor: mergekit's.
        parts: the tensors.
    """

    def __init__(self, executor: Executor, parts: _Parts):
        self._executor, self._parts = executor, parts

    def run(self, quiet: bool = False, desc: str | None = None) -> Iterator[tuple[Task[Any], Any]]:
        scheduled = [handle.task() for handle in self._executor.schedule.tasks]
        saves = [task for task in scheduled if isinstance(task, SaveTensor)]
        if saves:
            writer = _ShardWriter(saves[0].writer_task, self._parts)
            for save in saves:
                name = save.tensor_name
                if name in self._parts.file_of:
                    writer.save_tensor(name, self._parts.read(name))
                elif not save.optional:
                    raise MergeError(
                        f"tensor {name} is in no file of the unfinished merge; start over with "
                        "--restart."
                    )
            writer.finalize()  # type: ignore[no-untyped-call]
        others = [
            task
            for task in (handle.task() for handle in self._executor.targets)
            if not isinstance(task, SaveTensor | FinalizeModel)
        ]
        if others:  # mergekit's task that makes the tokenizer
            yield from Executor(others).run(quiet=quiet, desc=desc)


class _ShardWriter(TensorWriter):
    """Writes shards that are whole or not there, and takes over those that are there.

    Args:
        task: mergekit's task that would make the writer.
        parts: what is told that tensors are written.
    """

    def __init__(self, task: TensorWriterTask, parts: _Parts):
        super().__init__(task.out_path, max_shard_size=task.max_shard_size)
        self._parts = parts
        self._found = {tensors_in(f): f for f in Path(task.out_path).glob("*.safetensors")}

    def _write_shard_task(
        self, shard_data: dict[str, Tensor], shard_index: int, shard_path: str
    ) -> None:
        found = self._found.get(frozenset(shard_data))
        if found is None:
            found = Path(shard_path + ".unfinished")
            save_file(shard_data, found, metadata={"format": "pt"})
            flush(found)  # before its parts are removed
        found.replace(shard_path)
        self._parts.are_written(shard_data)
