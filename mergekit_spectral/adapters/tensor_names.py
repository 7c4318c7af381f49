"""Parse names of tensors, and find a tensor's name among the names in a checkpoint's files."""

from __future__ import annotations

import re
from collections.abc import Collection


def layer_of(name: str) -> int | None:
    """Return a tensor's layer, the first number in its name; None if the name has no number."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


def kind_of(name: str) -> str:
    """Return a tensor's name without the number of its layer.

    An example is ``model.layers.self_attn.q_proj``, for ``model.layers.3.self_attn.q_proj.weight``.
    """
    return re.sub(r"\.\d+\.", ".", name, count=1).removesuffix(".weight")


def find_name(known: Collection[str], name: str) -> str:
    """Return the name in `known` that means the weight `name`; if there is none, `name` itself.

    The names may differ in their first part. The files of GPT-2 on the Hub, for example, have no
    ``transformer.`` before the names of the layers, but the model has. Conversely, an adapter that
    was trained on the model without its head has names without the first part.
    """
    shorter = name.partition(".")[2]
    if name in known or shorter in known:
        return name if name in known else shorter
    longer = {first for first in (k.partition(".")[0] for k in known) if f"{first}.{name}" in known}
    return f"{longer.pop()}.{name}" if len(longer) == 1 else name
