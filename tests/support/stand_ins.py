"""Write small local models that replace the models of the Hub in recipes."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import torch
from support import checkpoints
from transformers import PreTrainedModel

from benchmarks import hub_models


class StandIns:
    """Stand-ins with the architecture, new tokens and kind of adapter of the models on the Hub.

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
        applied = {**recipe, "base_model": self._reference(base, base), "models": models}
        tokenizer = recipe.get("tokenizer", {})
        if "/" in tokenizer.get("source", ""):
            source = self._reference(tokenizer["source"], base)
            applied["tokenizer"] = {**tokenizer, "source": source}
        return applied

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
            checkpoints.write_enlarged(folder, model, *hub_models.NEW_TOKENS.get(hub_id, ()))
            if hub_id != base:
                (folder / "chat_template.jinja").write_text(chat_template(hub_id))
        return folder

    def _adapter(self, hub_id: str, base: str) -> Path:
        folder = self._folder(hub_id)
        if not folder.exists():
            known = hub_models.adapter(hub_id)
            classifier = known.task_type == "SEQ_CLS"
            model = checkpoints.llama_classifier() if classifier else _base(base)
            checkpoints.write_adapter(
                folder, model, _seed(hub_id), known.targets, task_type=known.task_type
            )
        return folder

    def _folder(self, hub_id: str) -> Path:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id), hub_id
        return self.folder / hub_id


def chat_template(hub_id: str) -> str:
    """Return a template that only this model has."""
    return f"{hub_id}: {{{{ messages[0].content }}}}"


def _base(hub_id: str) -> PreTrainedModel:
    build = checkpoints.llama if "llama" in hub_id.lower() else checkpoints.mistral
    return build().to(torch.bfloat16)


def _seed(hub_id: str) -> int:
    return zlib.crc32(hub_id.encode()) % 1000
