"""LoRA adapters: read in factors, carried in factors through mergekit's graph, written."""

# First, as in `mergekit_spectral.methods`.
import mergekit.merge_methods  # noqa: F401

from mergekit_spectral.adapters.adapted import AdaptedTensor
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
