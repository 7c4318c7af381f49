"""LoRA adapters: read in factors, carried in factors through mergekit's graph, written.

Merge methods need `AdaptedTensor` only. What reads and writes adapters imports peft and
transformers, and is loaded when it is first asked for: registering the methods must not need them,
as mergekit's own methods do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mergekit_spectral.adapters.adapted import AdaptedTensor

if TYPE_CHECKING:
    from mergekit_spectral.adapters.base_weights import BaseWeights, StoredWeights
    from mergekit_spectral.adapters.files import find_adapter
    from mergekit_spectral.adapters.loader import AdaptedLoader
    from mergekit_spectral.adapters.lora import LoraAdapter, NotAProductError
    from mergekit_spectral.adapters.structure import ModelStructure
    from mergekit_spectral.adapters.writing import LayerKind, NewLayer, check_folder, write_adapter

__all__ = [
    "AdaptedLoader",
    "AdaptedTensor",
    "BaseWeights",
    "LayerKind",
    "LoraAdapter",
    "ModelStructure",
    "NewLayer",
    "NotAProductError",
    "StoredWeights",
    "check_folder",
    "find_adapter",
    "write_adapter",
]

_MODULES = {
    "AdaptedLoader": "loader",
    "BaseWeights": "base_weights",
    "LayerKind": "writing",
    "LoraAdapter": "lora",
    "ModelStructure": "structure",
    "NewLayer": "writing",
    "NotAProductError": "lora",
    "StoredWeights": "base_weights",
    "check_folder": "writing",
    "find_adapter": "files",
    "write_adapter": "writing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
