"""What a tensor's name tells: the layer and the kind of weight."""

from __future__ import annotations

import re


def layer_of(name: str) -> int | None:
    """Return the layer that a tensor is of, the first number in its name."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


def kind_of(name: str) -> str:
    """Return what a tensor is besides its layer, as in ``model.layers.self_attn.q_proj``."""
    return re.sub(r"\.\d+\.", ".", name, count=1).removesuffix(".weight")
