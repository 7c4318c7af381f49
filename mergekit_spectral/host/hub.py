"""Read models on the Hub that are not on this machine, without downloading their weights.

Their small files are downloaded to a temporary folder that is laid out as the cache of the Hub's
client. A file with weights becomes a sparse file there, with the size and the header that it has on
the Hub. All that reads headers then works as for models on this machine. The values are zeros, and
nothing may read them: see `HubModels.has_values`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import (
    build_hf_headers,
    filter_repo_objects,
    hf_raise_for_status,
    http_stream_backoff,
)
from mergekit.common import ModelPath, ModelReference

from mergekit_spectral.adapters.adapter_files import CONFIG_NAME as ADAPTER_CONFIG
from mergekit_spectral.adapters.adapter_files import WEIGHTS_NAMES as ADAPTER_WEIGHTS
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.checkpoints import (
    NotDownloadedError,
    describe_beside,
    find_adapter_folder,
    find_folder,
    is_local,
    open_checkpoint,
)
from mergekit_spectral.recipe.findings import suggest_name
from mergekit_spectral.recipe.reading import Recipe

Kind = Literal["Model", "Adapter", "Tokenizer"]
"""What a recipe uses a repository for; of a tokenizer's, no weights."""

SAFETENSORS = "model.safetensors"
PICKLES = "pytorch_model.bin"
INDEX = ".index.json"
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "*.jinja",
)
SMALL_FILES = ("config.json", ADAPTER_CONFIG, f"*{INDEX}", *TOKENIZER_FILES)
"""Names of the files that a check reads, besides those with weights."""
LARGEST_HEADER = 100_000_000
"""Bytes of the largest header that safetensors reads."""
WORKERS = 8


class _UnreachableError(MergeError):
    """The Hub does not answer, so no other model need be tried."""


@dataclass(frozen=True)
class HubModels:
    """The models that were looked for on the Hub.

    Attributes:
        downloads: by model or adapter that was found, the bytes that a merge would download.
        problems: by model or adapter that could not be read, the reason.
        cache: the folder that a merge would download to: the cache of the Hub's client.
        folder: the temporary folder in which files have headers and no values, if there is one.
    """

    downloads: Mapping[ModelPath, int] = field(default_factory=dict)
    problems: Mapping[ModelPath, MergeError] = field(default_factory=dict)
    cache: Path = field(default_factory=lambda: Path(constants.HF_HUB_CACHE))
    folder: Path | None = None

    def require_readable(self, path: ModelPath) -> None:
        """Raise the reason if a model or an adapter could not be read on the Hub."""
        if path in self.problems:
            raise self.problems[path]

    def has_values(self, file: Path) -> bool:
        """Return whether a file with weights is on this machine, and not only its header."""
        return self.folder is None or self.folder not in file.resolve().parents


@contextmanager
def read_absent_models(recipe: Recipe, trust_remote_code: bool) -> Iterator[HubModels]:
    """Read the models of a recipe that are not on this machine, on the Hub.

    Within this context, the Hub's client, transformers and peft find them in a temporary cache,
    together with the recipe's other models, and do not use the network.

    Args:
        recipe: the recipe.
        trust_remote_code: whether to download the models' own code.

    Raises:
        MergeError: the Hub cannot be reached, or there is no room in the temporary folder.
    """
    if constants.is_offline_mode():
        raise MergeError(
            "--hub reads models on the Hub, but HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set; "
            "unset it, or leave out --hub."
        )
    beside = recipe.path.parent
    problems: dict[ModelPath, MergeError] = {}
    with tempfile.TemporaryDirectory(prefix="mergekit-spectral-") as name:
        copy = _CacheOfHeaders(Path(name).resolve(), beside, trust_remote_code)
        for path, kind in _named(recipe).items():
            try:
                if _is_absent(path, kind, beside):
                    copy.read(path, kind)
                elif not is_local(path):
                    copy.link(path, find_folder(path, _noun(kind), beside))
            except _UnreachableError:
                raise
            except MergeError as problem:
                problems[path] = problem
        cache = Path(constants.HF_HUB_CACHE)
        with _offline_from(copy.folder):
            yield HubModels(copy.downloads, problems, cache, copy.folder)


class _CacheOfHeaders:
    """Fills a folder, which is laid out as the Hub's cache, with headers.

    Args:
        folder: the folder.
        beside: the folder of the recipe, for messages.
        code: whether to download models' own code.

    Attributes:
        folder: the folder.
        downloads: by model or adapter that was found, the bytes that a merge would download.
    """

    def __init__(self, folder: Path, beside: Path, code: bool):
        self.folder = folder
        self.downloads: dict[ModelPath, int] = {}
        self._beside = beside
        self._small = (*SMALL_FILES, "*.py") if code else SMALL_FILES
        self._api = HfApi()
        self._counted: set[tuple[str, str]] = set()

    def read(self, path: ModelPath, kind: Kind) -> None:
        """Put a repository's small files and headers into the folder.

        Raises:
            NotDownloadedError: it may be right, but its headers cannot be read.
            MergeError: mergekit could not download it either, or has no use for it.
        """
        try:
            self._read(path, kind)
        except MergeError:
            raise
        except Exception as error:  # the client of the Hub raises those of its HTTP library too
            raise self._explain(error, path, kind) from error

    def link(self, path: ModelPath, snapshot: Path) -> None:
        """Link a snapshot in the user's cache."""
        own = self.folder / snapshot.parents[1].name / "snapshots" / snapshot.name
        if not own.exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            own.symlink_to(snapshot.resolve(), target_is_directory=True)
        self._refer(path, snapshot.name)

    def _read(self, path: ModelPath, kind: Kind) -> None:
        info = self._api.model_info(
            path.path,
            revision=path.revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        assert info.sha is not None  # the Hub always gives it
        at_commit = ModelPath(path=path.path, revision=info.sha)
        if not _is_absent(at_commit, kind, self._beside):
            self.link(path, find_folder(at_commit, _noun(kind), self._beside))
            return
        files = {file.rfilename: file for file in info.siblings or () if _is_inside(file.rfilename)}
        self.downloads[path] = self._count_bytes(path, kind, files)
        snapshot = self.folder / _folder_name(path) / "snapshots" / info.sha
        if snapshot.is_symlink():  # to the user's cache, which must not be written to
            snapshot.unlink()
        snapshot.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(WORKERS) as pool:
            fetch = partial(hf_hub_download, path.path, revision=info.sha, cache_dir=self.folder)
            list(pool.map(fetch, (name for name in files if self._is_small(name))))
            if kind != "Tokenizer":
                _require_headers(path, kind, files.keys())
                named = [name for name in _weights(files.keys(), snapshot) if name in files]
                url = partial(hf_hub_url, path.path, revision=info.sha)
                sizes = [files[name].size or 0 for name in named]
                list(pool.map(_write_header, map(url, named), map(snapshot.joinpath, named), sizes))
        self._refer(path, info.sha)

    def _is_small(self, name: str) -> bool:
        return "/" not in name and any(fnmatch(name, pattern) for pattern in self._small)

    def _refer(self, path: ModelPath, commit: str) -> None:
        """Make a revision refer to a commit."""
        revision = path.revision or constants.DEFAULT_REVISION
        if revision != commit and _is_inside(revision):
            reference = self.folder / _folder_name(path) / "refs" / revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit)

    def _count_bytes(self, path: ModelPath, kind: Kind, files: Mapping[str, RepoSibling]) -> int:
        """Count what a merge downloads: files that it wants and that are in no cache, each once."""
        blobs = Path(constants.HF_HUB_CACHE) / _folder_name(path) / "blobs"
        count = 0
        for name in filter_repo_objects(files, allow_patterns=_downloaded(kind, files.keys())):
            file = files[name]
            blob = (file.lfs.sha256 if file.lfs else file.blob_id) or name
            if (path.path, blob) not in self._counted and not (blobs / blob).exists():
                count += file.size or 0
            self._counted.add((path.path, blob))
        return count

    def _explain(self, error: Exception, path: ModelPath, kind: Kind) -> MergeError:
        """Return an error of the Hub's client as a sentence."""
        if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        what, hub = f"{_noun(kind)} {path.path}", self._api.endpoint
        if isinstance(error, GatedRepoError):
            return MergeError(
                f"Access to {what} is restricted on the Hub; ask for it at {hub}/{path.path}, and "
                "set HF_TOKEN to a token of the account that has it, or run `hf auth login`."
            )
        if isinstance(error, RepositoryNotFoundError):
            beside = describe_beside(path, self._beside)
            return MergeError(
                f"{what} is not a local folder (working directory {Path.cwd()}) and was not found "
                f"on the Hub ({hub}){beside}; correct the name or, if it is private, set HF_TOKEN "
                "to a token that can read it or run `hf auth login`."
            )
        if isinstance(error, RevisionNotFoundError):
            return MergeError(
                f"{what} has no revision {path.revision} on the Hub; {self._suggest(path)}"
            )
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            if status in (401, 403):
                return MergeError(
                    f"The Hub ({hub}) denies access to {what} (status {status}); set HF_TOKEN to a "
                    "token that can read it, or run `hf auth login`."
                )
            return NotDownloadedError(
                f"{what} cannot be read on the Hub ({hub}), which answers with status {status}; "
                "try again later."
            )
        if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
            return _UnreachableError(
                f"{self.folder} cannot hold the headers of {what} ({error.strerror}); set TMPDIR "
                "to a folder on a disk that has room and sparse files."
            )
        return _UnreachableError(
            f"The Hub ({hub}) cannot be reached ({first_line(error)}); check the network and "
            "HF_ENDPOINT, or leave out --hub to check what is on this machine."
        )

    def _suggest(self, path: ModelPath) -> str:
        try:
            refs = self._api.list_repo_refs(path.path)
        except Exception:  # the sentence is about another error
            return "name a branch, a tag or a commit."
        names = [ref.name for ref in (*refs.branches, *refs.tags)]
        return suggest_name(path.revision or "", names)


@contextmanager
def _offline_from(cache: Path) -> Iterator[None]:
    """Have the Hub's client and transformers read a cache and not ask the Hub.

    Both look up these two values each time that they need them.
    """
    before = constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE
    constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = str(cache), True
    try:
        yield
    finally:
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = before


def _named(recipe: Recipe) -> dict[ModelPath, Kind]:
    """Return the models, adapters and tokenizers that a recipe names."""
    named: dict[ModelPath, Kind] = {}
    for reference in recipe.references:
        named.setdefault(reference.model, "Model")
        if reference.lora is not None:
            named.setdefault(reference.lora, "Adapter")
    config = recipe.config
    for source in (config.tokenizer_source, config.tokenizer and config.tokenizer.source):
        if isinstance(source, ModelReference):
            named.setdefault(source.model, "Tokenizer")
    return named


def _is_absent(path: ModelPath, kind: Kind, beside: Path) -> bool:
    """Return whether a model has the form of a Hub id, and is not on this machine as a whole."""
    try:
        if kind == "Model":
            open_checkpoint(path, beside, converted=True)
        elif kind == "Adapter":
            find_adapter_folder(path, beside)
        else:
            find_folder(path, _noun(kind), beside)
    except NotDownloadedError:
        return True
    except MergeError:
        return False  # the check reports what is wrong with it
    return False


def _require_headers(path: ModelPath, kind: Kind, names: Collection[str]) -> None:
    """Check that a repository has weights that mergekit reads, in files whose headers can be read.

    Raises:
        NotDownloadedError: it has weights, but only in pickles.
        MergeError: it has none.
    """
    if any(name.endswith(".safetensors") for name in names):
        return
    what = f"{_noun(kind)} {path.path}"
    pickles = [ADAPTER_WEIGHTS[1]] if kind == "Adapter" else [PICKLES, PICKLES + INDEX]
    if found := next((name for name in pickles if name in names), None):
        raise NotDownloadedError(
            f"{what} only has {found} on the Hub, and the header of such a file cannot be read "
            "without the rest of it; download the model to check its tensors."
        )
    others = sorted({PurePosixPath(n).suffix for n in names} & {".gguf", ".pt", ".pth", ".bin"})
    hint = f"; {others[0]} files are not read" if others else ""
    needed = " or ".join(ADAPTER_WEIGHTS if kind == "Adapter" else (SAFETENSORS, PICKLES))
    raise MergeError(
        f"{what} has no weights that mergekit reads on the Hub{hint}; it needs {needed}."
    )


def _weights(names: Collection[str], snapshot: Path) -> list[str]:
    """Return the safetensors files that mergekit reads, and an adapter's."""
    index = snapshot / (SAFETENSORS + INDEX)
    found = [ADAPTER_WEIGHTS[0]]
    if not index.is_file():
        return [*found, SAFETENSORS]
    try:
        shards = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError):
        return found  # the check reports that it cannot be read
    return [*found, *sorted(filter(lambda shard: isinstance(shard, str), shards))]


def _downloaded(kind: Kind, names: Collection[str]) -> list[str]:
    """Return patterns of the files that a merge downloads."""
    if kind == "Tokenizer":
        return list(TOKENIZER_FILES)
    if kind == "Adapter":
        return [ADAPTER_CONFIG, *ADAPTER_WEIGHTS]
    # As mergekit's ModelReference.local_path.
    in_safetensors = any(name.lower().endswith(".safetensors") for name in names)
    return ["tokenizer.model", "*.json", "*.safetensors" if in_safetensors else "*.bin"]


def _write_header(url: str, file: Path, size: int) -> None:
    """Write a sparse file of a size, with the header that a safetensors file has on the Hub.

    The header of a damaged file may be left out; the check then reports that it is damaged.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        if size >= 8:
            start = _get(url, 0, 8)
            opened.write(start)
            length = int.from_bytes(start, "little")
            if 0 < length <= min(size - 8, LARGEST_HEADER):
                opened.write(_get(url, 8, length))
        opened.truncate(size)


def _get(url: str, start: int, count: int) -> bytes:
    """Return `count` bytes of a file on the Hub, from `start` on."""
    # Without compression, which would be of the part and not of the file.
    headers = build_hf_headers(
        headers={"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
    )
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with http_stream_backoff("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if response.status_code != 206:
            raise _UnreachableError(
                f"{url} cannot be read in part, as the Hub's files can (status "
                f"{response.status_code}); set HF_ENDPOINT to a server that supports ranges."
            )
        return bytes(response.read())


def _folder_name(path: ModelPath) -> str:
    return repo_folder_name(repo_id=path.path, repo_type="model")


def _is_inside(name: str) -> bool:
    """Return whether a name, which others have chosen, is that of a file inside of a folder."""
    return not os.path.isabs(name) and ".." not in PurePosixPath(name).parts


def _noun(kind: Kind) -> str:
    return "Adapter" if kind == "Adapter" else "Model"
