"""The methods that a recipe can name."""

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.base import SpectralMethod, shared_side
from mergekit_spectral.methods.catalog import spectral_methods
from mergekit_spectral.methods.drm import DRM
from mergekit_spectral.methods.knots import KnOTS
from mergekit_spectral.methods.star import STAR

__all__ = [
    "DRM",
    "STAR",
    "KnOTS",
    "MergeError",
    "SpectralMethod",
    "shared_side",
    "spectral_methods",
]
