"""The chat templates that come with mergekit."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from mergekit._data import chat_templates


def chat_template_names() -> list[str]:
    """Return the names that a recipe's ``chat_template`` can have."""
    files = importlib.resources.files(chat_templates).iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".jinja"))
