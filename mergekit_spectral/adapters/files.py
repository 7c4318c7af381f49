"""Where an adapter's two files are, in a folder or on the hub."""

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
        name: what the recipe calls it, for messages.
        config: what peft's own classes read from ``adapter_config.json``.
        weights: ``adapter_model.safetensors`` or ``adapter_model.bin``.
        peft_version: that ``adapter_config.json`` names. peft's classes put their own in its place
            where it names none.
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
        path: a folder, or a repository on the hub, from which only the two files are fetched.
        revision: a branch, tag or commit on the hub.
        cache_dir: where what comes from the hub is kept; by default, where the hub's client does.

    Raises:
        MergeError: if there is no such folder or repository, a file is missing, or peft cannot
            read the configuration.
    """
    folder = Path(path) if os.path.exists(path) else _fetch(path, revision, cache_dir)
    if not (folder / CONFIG_NAME).is_file():
        raise MergeError(
            f"Adapter {path} has no {CONFIG_NAME}; a LoRA input is a folder or hub repository as "
            "peft's save_pretrained writes it. A whole model is named without a base before it."
        )
    weights = next((folder / n for n in WEIGHTS_NAMES if (folder / n).is_file()), None)
    if weights is None:
        raise MergeError(
            f"Adapter {path} has no weights, neither {' nor '.join(WEIGHTS_NAMES)}; copy or "
            "download it again."
        )
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        stored = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except KeyError as error:
        raise MergeError(
            f"Adapter {path} has the peft_type {error} in its {CONFIG_NAME}, which peft "
            f"{peft.__version__} does not know; a newer peft may."
        ) from error
    except Exception as error:  # what a file holds may make it raise any
        raise MergeError(
            f"Adapter {path}: peft cannot read its {CONFIG_NAME} ({first_line(error)}); correct "
            "it, or copy or download it again."
        ) from error
    if config.peft_type is None:
        raise MergeError(
            f"Adapter {path} has no peft_type in its {CONFIG_NAME}; for LoRA it is LORA."
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
            f"Adapter {path}{at} is neither a folder here nor a repository that the hub gives out "
            f"({first_line(error)}); give the path or the id of one that you have access to."
        ) from error
