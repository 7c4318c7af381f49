"""DRM, KnOTS and STAR as mergekit merge methods.

Importing this package makes the methods known to mergekit, whichever of the two is imported
first. After ``pip install`` it is not needed: PyTorch loads the same hook by itself (see
`mergekit_spectral.autoload`).
"""

from mergekit_spectral.autoload import install_hooks

__version__ = "0.1.0"

install_hooks()
