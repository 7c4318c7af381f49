"""Write small local models that replace the models of the Hub in recipes."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import torch
from support import checkpoints
from transformers import PreTrainedModel

NEW_TOKENS = {
    "NousResearch/Hermes-2-Pro-Llama-3-8B": ("<|im_end|>", "<|im_start|>", "<tool_call>"),
    "teknium/OpenHermes-2.5-Mistral-7B": ("<|im_end|>", "<|im_start|>"),
    "meta-math/MetaMath-Mistral-7B": ("[PAD]",),
}
"""Tokens that a model has and its base does not have; its embeddings have a row for each."""

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


class StandIns:
    """Stand-ins with the architecture and vocabulary of the models on the Hub.

    A stand-in is written when a recipe first uses it.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def applied_to(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """Return `recipe` with every hub id replaced by a stand-in's folder."""
        base = recipe["base_model"]
        models = [
            {**entry, "model": self._reference(entry["model"], base)} for entry in recipe["models"]
        ]
        return {**recipe, "base_model": self._reference(base, base), "models": models}

    def _reference(self, reference: str, base: str) -> str:
        model, plus, adapter = reference.partition("+")
        if plus:
            return f"{self._model(model, base)}+{self._adapter(adapter, model)}"
        return str(self._model(model, base))

    def _model(self, hub_id: str, base: str) -> Path:
        folder = self._folder(hub_id)
        if not folder.exists():
            model = _base(base)
            if hub_id != base:
                model = checkpoints.fine_tuned(model, _seed(hub_id))
            checkpoints.write_enlarged(folder, model, *NEW_TOKENS.get(hub_id, ()))
        return folder

    def _adapter(self, hub_id: str, base: str) -> Path:
        folder = self._folder(hub_id)
        if not folder.exists():
            checkpoints.write_adapter(folder, _base(base), _seed(hub_id), TARGETS)
        return folder

    def _folder(self, hub_id: str) -> Path:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id), hub_id
        return self.folder / hub_id


def _base(hub_id: str) -> PreTrainedModel:
    build = checkpoints.llama if "llama" in hub_id.lower() else checkpoints.mistral
    return build().to(torch.bfloat16)


def _seed(hub_id: str) -> int:
    return zlib.crc32(hub_id.encode()) % 1000
