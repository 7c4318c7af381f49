"""Put our methods into mergekit's registry."""

from __future__ import annotations

import logging
from types import ModuleType

LOG = logging.getLogger(__name__)


def register_methods(registry: ModuleType) -> None:
    """Make our methods usable by name. Doing it again changes nothing.

    A name that mergekit uses itself stays mergekit's, with a warning.

    Args:
        registry: the module ``mergekit.merge_methods.registry``.
    """
    # Here and from the modules themselves: this may be called while `methods` is being imported.
    from mergekit_spectral.methods.base import SpectralMethod
    from mergekit_spectral.methods.catalog import spectral_methods

    taken = {method.spec.name: method for method in registry.registered_methods()}
    for method in spectral_methods(taken.values()):
        name = method.spec.name
        if name not in taken:
            registry.register(method)
        elif not isinstance(taken[name], SpectralMethod):
            LOG.warning(
                "mergekit has a method named %r of its own, so recipes get that one and not "
                "mergekit-spectral's.",
                name,
            )
