"""base + s·Δ for any Δ and s, in the memory of one model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.whole_merges import StoredTensors
from mergekit_spectral.tuning.updates import Update


def load_model(
    folder: Path, dtype: torch.dtype, device: torch.device, trust_remote_code: bool
) -> PreTrainedModel:
    """Load a causal language model.

    Raises:
        MergeError: transformers cannot load it, it lacks weights, or the device's memory is too
            small.
    """
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise too_large(folder, device) from None
    except Exception as error:  # transformers raises many
        raise MergeError(
            f"transformers cannot load {folder} as a language model ({first_line(error)})."
        ) from error
    model: PreTrainedModel
    model, loaded = found
    if missing := sorted(loaded["missing_keys"]):
        raise MergeError(
            f"{folder} has no weights for {missing[0]}"
            + (f" and {len(missing) - 1} other parameters" if len(missing) > 1 else "")
            + ", so it cannot be scored."
        )
    model.eval()  # type: ignore[no-untyped-call]
    return model


def too_large(folder: Path, device: torch.device) -> MergeError:
    """Return the error that a model does not fit."""
    return MergeError(
        f"{folder} does not fit into the memory of {device}; use `--dtype bfloat16`, another "
        "`--device`, or a machine with more memory."
    )


def parameters(
    folder: Path, dtype: torch.dtype, trust_remote_code: bool
) -> Iterator[tuple[str, Tensor]]:
    """Load a checkpoint and yield the model's parameters. Those that share entries are one."""
    model = load_model(folder, dtype, torch.device("cpu"), trust_remote_code)
    yield from model.named_parameters()


class ScaledModel:
    """A base model in memory, to which updates are added at any scale.

    An adapter's factors are added to the base's modules. A difference of all weights is added to
    the base's weights on disk, one weight at a time, and the sum replaces the weight in memory.

    Args:
        folder: the base's.
        work: a folder for the base's weights. They are written when they are needed first.
        dtype: of the model.
        device: of the model.
        trust_remote_code: as for transformers.
    """

    def __init__(
        self,
        folder: Path,
        work: Path,
        dtype: torch.dtype,
        device: torch.device,
        trust_remote_code: bool,
    ):
        self._model = load_model(folder, dtype, device, trust_remote_code)
        # The same objects before and after peft wraps the modules that have them.
        self._weights = dict(self._model.named_parameters())
        self._stored = work / "base"
        self._is_base = True
        # peft puts the layers of adapters into `_model` itself.
        self._peft: PeftModel | None = None
        self._adapter: tuple[str, Path] | None = None

    def base(self) -> nn.Module:
        """Return the base itself."""
        self._enable_adapter(False)
        self._restore()
        return self._model

    def with_adapter(self, folder: Path, scale: float = 1.0) -> nn.Module:
        """Return the base with an adapter.

        Args:
            folder: the adapter's, in peft's format.
            scale: by which its own scale is multiplied. Adapters other than LoRA have no scale.
        """
        self._restore()
        if self._adapter is None or self._adapter[1] != folder:
            self._load_adapter(folder)
        assert self._adapter is not None
        self._enable_adapter(True)
        for module in self._model.modules():
            if isinstance(module, LoraLayer):
                module.set_scale(self._adapter[0], scale)
        return self._model

    @torch.no_grad()
    def at(self, update: Update, scale: float) -> nn.Module:
        """Return the base with an update at a scale."""
        if update.is_adapter:
            return self.with_adapter(update.folder, scale)
        self._enable_adapter(False)
        base, difference = self._base(), StoredTensors(update.folder)
        self._is_base = False
        for name, weight in self._weights.items():
            before, change = base.read(name).to(weight.device), difference.read(name)
            weight.copy_(torch.add(before.float(), change.to(weight.device).float(), alpha=scale))
        return self._model

    def _base(self) -> StoredTensors:
        if not self._stored.exists():
            assert self._is_base
            return StoredTensors.write(self._stored, self._weights.items())
        return StoredTensors(self._stored)

    @torch.no_grad()
    def _restore(self) -> None:
        if not self._is_base:
            base = self._base()
            for name, weight in self._weights.items():
                weight.copy_(base.read(name))
            self._is_base = True

    def _load_adapter(self, folder: Path) -> None:
        """Load an adapter in the place of the one before."""
        before = self._adapter
        name = "two" if before and before[0] == "one" else "one"  # peft refuses parts of "lora_"
        if self._peft is None:
            self._peft = PeftModel.from_pretrained(self._model, str(folder), name)
        else:
            self._peft.load_adapter(str(folder), name)
            self._peft.set_adapter(name)
        if before:
            self._peft.delete_adapter(before[0])
        self._model.eval()  # type: ignore[no-untyped-call]
        self._adapter = name, folder

    def _enable_adapter(self, enabled: bool) -> None:
        if self._peft is not None:
            tuner: Any = self._peft.base_model
            (tuner.enable_adapter_layers if enabled else tuner.disable_adapter_layers)()
