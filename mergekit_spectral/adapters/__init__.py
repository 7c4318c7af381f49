"""LoRA inputs: read in factors, and carried in factors through mergekit's graph."""

from mergekit_spectral.adapters.adapted import AdaptedTensor
from mergekit_spectral.adapters.base_weights import BaseWeights, StoredWeights
from mergekit_spectral.adapters.files import find_adapter
from mergekit_spectral.adapters.loader import AdaptedLoader
from mergekit_spectral.adapters.lora import LoraAdapter, NotAProductError

__all__ = [
    "AdaptedLoader",
    "AdaptedTensor",
    "BaseWeights",
    "LoraAdapter",
    "NotAProductError",
    "StoredWeights",
    "find_adapter",
]
