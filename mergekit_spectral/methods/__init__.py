"""The methods that a recipe can name.

- `drm`, `knots`, `star`, `iso`, `tsvm`, `actmat`: a file for each method, which reads like its
  paper.
- `base`: what they share, from mergekit's tensors to deltas and back.
- `task_deltas`: the deltas of mergekit's tensors.
- `factored_merge`: the merged update of one weight in factors, for adapters.
- `parameters`: what recipes can set.
- `costs`: what a merge costs, and the arithmetic that methods share for it; `mergekits_own`: the
  same for mergekit's own methods, which do not say it themselves.
- `tally`: how the tensors of a merge were merged.
- `description`: what `mergekit-spectral methods` prints.
- `catalog`: the list of methods.

docs/add-a-method.md shows how to write one, here or in a package of one's own. Such a package
imports from here, from `parameters`, from `costs` if it says what it costs, and from
`mergekit_spectral.spectral`.
"""

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.actmat import ACTMat
from mergekit_spectral.methods.base import SpectralMethod, along_shared_side, shared_side
from mergekit_spectral.methods.catalog import spectral_methods
from mergekit_spectral.methods.drm import DRM
from mergekit_spectral.methods.iso import Iso
from mergekit_spectral.methods.knots import KnOTS
from mergekit_spectral.methods.star import STAR
from mergekit_spectral.methods.tsvm import TSVM

__all__ = [
    "DRM",
    "STAR",
    "TSVM",
    "ACTMat",
    "Iso",
    "KnOTS",
    "MergeError",
    "SpectralMethod",
    "along_shared_side",
    "shared_side",
    "spectral_methods",
]
