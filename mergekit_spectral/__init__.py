"""DRM, KnOTS and STAR as mergekit merge methods.

Importing this package makes the methods known to mergekit, whichever of the two is imported
first. After ``pip install`` it is not needed: PyTorch loads the same hook by itself (see
`mergekit_spectral.autoload`).

The subpackages are layers, each of which imports only itself and those before it: `spectral` (the
mathematics), `adapters` (LoRA), `methods` (what a recipe can name), `recipe` (a recipe as text and
as sections), `host` (what touches mergekit's insides), `checking`, `inspecting`, `demo` and
`command_line`. Beside them are the front door, which is this file and `autoload` (the hook), and
`errors` and `whole_files`. `tests/host/test_rooms.py` holds the order.
"""

from mergekit_spectral.autoload import install_hooks

__version__ = "0.1.0"

install_hooks()
