"""Where a model's files are on this machine, and what their headers say."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import safetensors
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from mergekit.common import ModelPath
from mergekit.io.lazy_tensor_loader import LazyTensorLoader, ShardedTensorIndex
from safetensors import SafetensorError
from torch import Tensor

from mergekit_spectral.adapters.adapter_files import CONFIG_NAME as ADAPTER_CONFIG
from mergekit_spectral.adapters.adapter_files import WEIGHTS_NAMES as ADAPTER_WEIGHTS
from mergekit_spectral.adapters.stored_tensors import DTYPES, Header
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.loaders import Loader
from mergekit_spectral.host.mergeable import why_not_mergeable

_HUB = "; if it is on the Hub, the merge downloads it first"


class StoredWeights:
    """The weights in a checkpoint's files.

    No weight is read for its shape, except from pickles that hold more than tensors.

    Args:
        loader: of the checkpoint's tensors.

    Raises:
        MergeError: if the index names no file for a tensor.
    """

    def __init__(self, loader: Loader):
        _check_index(loader.index)
        self.index = loader.index
        self._loader = loader
        self._headers: dict[str, Header] = {}

    def header(self, name: str) -> Header:
        """Return a weight's shape and dtype."""
        if name not in self._headers:
            path = Path(self.index.base_path) / self.index.tensor_paths[name]
            if path.suffix == ".safetensors":
                self._headers |= _safetensors_headers(path)
            else:
                self._headers |= _pickled_headers(path)
        if name not in self._headers:
            tensor = self.read(name, torch.device("cpu"))
            self._headers[name] = tuple(tensor.shape), tensor.dtype
        return self._headers[name]

    def read(self, name: str, device: torch.device) -> Tensor:
        """Return a weight on `device`."""
        tensor = self._loader.get_tensor(name, device=str(device))
        assert tensor is not None  # the loader raises where there is none
        return tensor


class NotDownloadedError(MergeError):
    """A model or adapter is not on this machine, but may be on the Hub."""


class _IncompleteError(MergeError):
    """A folder lacks files. In the Hub's cache, they may only not be downloaded yet."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole model's files.

    Attributes:
        folder: the folder with the files.
        weights: the files that hold tensors.
        index: mergekit's index of the tensors.
        headers: shape and dtype of every tensor, by name.
    """

    folder: Path
    weights: tuple[Path, ...]
    index: ShardedTensorIndex
    headers: dict[str, Header]

    def read(self, name: str) -> Tensor:
        """Return a tensor's values."""
        return StoredWeights(LazyTensorLoader(self.index)).read(name, torch.device("cpu"))


def find_folder(path: ModelPath, what: str, recipe_folder: Path) -> Path:
    """Return the folder that mergekit would read, without asking the Hub.

    Args:
        path: as the recipe has it.
        what: what messages call it, "Model" or "Adapter".
        recipe_folder: the folder of the recipe, in which mergekit does not look.

    Raises:
        NotDownloadedError: it has the form of a Hub id, and is not in the Hub's cache.
        MergeError: there is no such folder.
    """
    folder = Path(path.path)
    if is_local(path):
        if not folder.is_dir():
            raise MergeError(f"{what} {path.path} is a file; name the folder that it is in.")
        return folder
    beside = describe_beside(path, recipe_folder)
    if path.path.startswith(("/", ".", "~")) or path.path.count("/") > 1 or "\\" in path.path:
        home = "; mergekit does not expand ~ to a home folder" if path.path.startswith("~") else ""
        raise MergeError(
            f"{what} {path.path} not found (working directory {Path.cwd()}){home}{beside}; give a "
            "folder or a Hub id, such as organization/name."
        )
    try:
        return Path(
            huggingface_hub.snapshot_download(
                path.path, revision=path.revision, local_files_only=True
            )
        )
    except HFValidationError:
        raise MergeError(
            f"{what} {path.path} not found (working directory {Path.cwd()}), and it is not a valid "
            "Hub id; give a folder or a Hub id, such as organization/name."
        ) from None
    except LocalEntryNotFoundError as error:
        # New versions of the Hub's client also raise this where any file is missing that the
        # repository has, such as its README.md. Which files are needed is for the caller to check.
        if snapshot := getattr(error, "snapshot_path", None):
            return Path(snapshot)
        raise not_downloaded(path, what, beside) from None


def find_adapter_folder(path: ModelPath, recipe_folder: Path, complete: bool = False) -> Path:
    """Return the folder that an adapter would be read from, without asking the Hub.

    Args:
        path: as the recipe has it.
        recipe_folder: where the recipe is.
        complete: whether the Hub's cache is known to have all of its files.

    Raises:
        NotDownloadedError: it has the form of a Hub id, and is not in the Hub's cache, or in part.
        MergeError: there is no such folder.
    """
    folder = find_folder(path, "Adapter", recipe_folder)
    needed = [[ADAPTER_CONFIG], ADAPTER_WEIGHTS]
    there = all(any((folder / name).is_file() for name in names) for names in needed)
    if not (there or complete or is_local(path)):
        raise not_downloaded(path, "Adapter")
    return folder


def describe_beside(path: ModelPath, recipe_folder: Path) -> str:
    """Return the end of a sentence about a missing model: that it is where the recipe is, or ""."""
    if not os.path.isdir(recipe_folder / path.path):
        return ""
    return f"; it is in the folder of the recipe, so run mergekit in {recipe_folder.resolve()}"


@contextmanager
def without_hub() -> Iterator[None]:
    """Keep all libraries from asking the Hub within this context, as ``HF_HUB_OFFLINE=1`` does."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def not_downloaded(path: ModelPath, what: str, beside: str = "") -> NotDownloadedError:
    """Return the error for files that are not on this machine, but may be on the Hub."""
    at = f" at revision {path.revision}" if path.revision else ""
    return NotDownloadedError(
        f"{what} {path.path}{at} is neither a local folder nor downloaded{beside or _HUB}."
    )


def is_local(path: ModelPath) -> bool:
    """Return whether a model is a local file or folder, and so not a Hub id."""
    # Path.exists would raise for a name that is too long for a file.
    return os.path.exists(path.path)


def open_checkpoint(
    path: ModelPath, recipe_folder: Path, converted: bool, complete: bool = False
) -> Checkpoint:
    """Read the index and the headers of a model's files.

    Args:
        path: as the recipe has it.
        recipe_folder: where the recipe is.
        converted: whether the recipe sets ``dtype``.
        complete: whether the Hub's cache is known to have all of its files.

    Raises:
        NotDownloadedError: it is not on this machine.
        MergeError: it is not a model that mergekit reads, a file is missing or damaged, or a tensor
            is of a dtype that cannot be merged.
    """
    folder = find_folder(path, "Model", recipe_folder)
    try:
        return _open(path, folder, converted)
    except _IncompleteError as error:
        if complete or is_local(path):
            raise
        raise not_downloaded(path, "Model") from error


def _open(path: ModelPath, folder: Path, converted: bool) -> Checkpoint:
    if not (folder / "config.json").is_file():
        if (folder / ADAPTER_CONFIG).is_file():
            raise _IncompleteError(
                f"{path} is an adapter; write it after the model that it was trained on, as in "
                f"<base>+{path}."
            )
        raise _IncompleteError(f"Model {path} has no config.json; copy or download it again.")
    try:
        index = ShardedTensorIndex.from_disk(str(folder))
    except SafetensorError as error:
        raise _damaged(path, error) from error
    except Exception as error:  # a damaged file may raise any
        others = sorted(p.suffix for p in folder.iterdir() if p.suffix in (".gguf", ".pt", ".pth"))
        hint = f"; {others[0]} files are not read" if others else ""
        raise _IncompleteError(
            f"Model {path} has no weights that mergekit reads ({first_line(error)}){hint}; it "
            "needs model.safetensors or pytorch_model.bin, or the shards of one of them."
        ) from error
    stored = StoredWeights(LazyTensorLoader(index))
    weights = tuple(sorted({folder / name for name in index.tensor_paths.values()}))
    if missing := [file.name for file in weights if not file.is_file()]:
        raise _IncompleteError(
            f"Model {path} lacks {', '.join(missing)}, which its index names; copy or download it "
            "again."
        )
    headers = _headers(path, stored)
    for name, (shape, dtype) in headers.items():
        if why := why_not_mergeable(name, shape, dtype, headers, converted):
            raise MergeError(f"Tensor {name} of model {path} {why}.")
    return Checkpoint(folder, weights, index, headers)


def _headers(path: ModelPath, stored: StoredWeights) -> dict[str, Header]:
    names = stored.index.tensor_paths
    try:
        # mergekit ignores keys that are not strings.
        return {name: stored.header(name) for name in names if isinstance(name, str)}
    except MergeError:
        raise
    except Exception as error:  # a damaged file may raise any
        raise _damaged(path, error) from error


def _damaged(path: ModelPath, error: Exception) -> MergeError:
    return MergeError(
        f"Model {path}: the header of a file with its weights cannot be read "
        f"({first_line(error)}); copy or download it again."
    )


def _check_index(index: ShardedTensorIndex) -> None:
    files: dict[str, object] = dict(index.tensor_paths)
    for name, file in files.items():
        if not isinstance(file, str):
            raise MergeError(
                f"The index of the model in {index.base_path} maps tensor {name} to {file!r}, "
                "which is not a file name; copy or download the model again."
            )


def _safetensors_headers(path: Path) -> dict[str, Header]:
    with safetensors.safe_open(path, framework="pt") as file:
        entries = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        return {
            key: (tuple(entry.get_shape()), DTYPES[entry.get_dtype()])
            for key, entry in entries.items()
            if entry.get_dtype() in DTYPES
        }


def _pickled_headers(path: Path) -> dict[str, Header]:
    try:
        tensors = torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError:
        return {}
    for key, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.layout != torch.strided:
            raise MergeError(
                f"Tensor {key} in {path} is {str(tensor.layout).removeprefix('torch.')}; save it "
                "as a dense tensor."
            )
    return {
        key: (tuple(tensor.shape), tensor.dtype)
        for key, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    }
