"""Names of tensors: what they say, and under which names files hold them."""

from __future__ import annotations

import re
from collections.abc import Collection


def layer_of(name: str) -> int | None:
    """Return the layer that a tensor is of, the first number in its name."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


def kind_of(name: str) -> str:
    """Return what a tensor is besides its layer, as in ``model.layers.self_attn.q_proj``."""
    return re.sub(r"\.\d+\.", ".", name, count=1).removesuffix(".weight")


def name_in(known: Collection[str], name: str) -> str:
    """Return a weight's name among the `known`, or `name` itself if it is not among them.

    Files may lack the model's own name before those of its layers (``transformer.`` in GPT-2's on
    the hub), or have it where the adapter, trained on the bare model, lacks it.
    """
    shorter = name.partition(".")[2]
    if name in known or shorter in known:
        return name if name in known else shorter
    longer = {first for first in (k.partition(".")[0] for k in known) if f"{first}.{name}" in known}
    return f"{longer.pop()}.{name}" if len(longer) == 1 else name
