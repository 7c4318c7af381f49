"""Find an adapter's two files, in a folder or on the Hugging Face Hub."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import peft
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from mergekit_spectral.errors import MergeError, first_line

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAMES = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class AdapterFiles:
    """The files of one adapter.

    Attributes:
        name: the adapter's name in the recipe, for messages.
        config: the configuration, as peft's classes read ``adapter_config.json``.
        weights: path of ``adapter_model.safetensors`` or ``adapter_model.bin``.
        peft_version: the version of peft in ``adapter_config.json``, or None. `config` cannot be
            used for it: where the file has no version, peft's classes fill in their own.
    """

    name: str
    config: peft.PeftConfig
    weights: Path
    peft_version: str | None


def find_adapter(
    path: str, revision: str | None = None, cache_dir: str | None = None
) -> AdapterFiles:
    """Find an adapter and read its configuration.

    Args:
        path: a folder, or the id of a repository on the Hub. Only the two files are downloaded.
        revision: a branch, tag or commit on the Hub.
        cache_dir: where downloaded files are cached; by default, in the cache of the Hub's client.

    Raises:
        MergeError: if there is no such folder or repository, a file is missing, or peft cannot
            read the configuration.
    """
    folder = Path(path) if os.path.exists(path) else _fetch(path, revision, cache_dir)
    if not (folder / CONFIG_NAME).is_file():
        raise MergeError(
            f"Adapter {path} has no {CONFIG_NAME}; give a folder or Hub repository that peft's "
            "save_pretrained wrote. To merge a whole model, give its name alone, without a base "
            "and `+` before it."
        )
    weights = next((folder / n for n in WEIGHTS_NAMES if (folder / n).is_file()), None)
    if weights is None:
        raise MergeError(
            f"Adapter {path} has no weights: neither {' nor '.join(WEIGHTS_NAMES)} was found; copy "
            "or download it again."
        )
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        stored = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except KeyError as error:
        raise MergeError(
            f"Adapter {path}: peft {peft.__version__} does not support the `peft_type` {error} in "
            f"its {CONFIG_NAME}; install a newer version of peft."
        ) from error
    except Exception as error:  # depending on the file's content, peft can raise any exception
        raise MergeError(
            f"Adapter {path}: peft cannot read its {CONFIG_NAME} ({first_line(error)}); correct "
            "it, or copy or download it again."
        ) from error
    if config.peft_type is None:
        raise MergeError(
            f"Adapter {path} has no `peft_type` in its {CONFIG_NAME}; for LoRA it must be LORA."
        )
    version = stored.get("peft_version")
    return AdapterFiles(path, config, weights, version if isinstance(version, str) else None)


def _fetch(path: str, revision: str | None, cache_dir: str | None) -> Path:
    try:
        return Path(
            huggingface_hub.snapshot_download(
                path,
                revision=revision,
                cache_dir=cache_dir,
                allow_patterns=[CONFIG_NAME, *WEIGHTS_NAMES],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision}" if revision else ""
        raise MergeError(
            f"Adapter {path}{at} not found: it is not a folder (working directory {Path.cwd()}), "
            f"and it cannot be downloaded from the Hub ({first_line(error)}); give a folder, or "
            "the id of a repository that you have access to."
        ) from error
