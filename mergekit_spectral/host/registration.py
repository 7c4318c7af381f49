"""Our methods in mergekit's table of methods, and in the table of those that it can evolve.

This module imports the standard library only; see `mergekit_spectral.host`.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import ValuesView
from typing import TYPE_CHECKING, Any, TypeGuard

from mergekit_spectral.host import names

if TYPE_CHECKING:
    from mergekit.merge_methods.base import MergeMethod

    from mergekit_spectral.methods import SpectralMethod

LOG = logging.getLogger(__name__)


class MethodTable(dict[str, "MergeMethod"]):
    """mergekit's methods by name. Ours are added at the first look-up of a name that is missing.

    mergekit looks up one name, or all values. A look-up of ``ties`` does not import our methods. If
    mergekit or another package has already registered a name of ours, that method is kept, with a
    warning.

    No lock is held while our methods are imported, because the thread may hold import locks that
    another thread waits for. So two threads may create the methods twice; those of the thread that
    finishes first are used.
    """

    def __init__(self, methods: dict[str, MergeMethod]):
        super().__init__(methods)
        self._lock = threading.Lock()
        self._complete = False

    def __missing__(self, name: str) -> MergeMethod:
        self._add_ours()
        if name in self:
            return self[name]
        raise KeyError(name)

    def values(self) -> ValuesView[MergeMethod]:  # type: ignore[override]
        self._add_ours()
        return super().values()

    def _add_ours(self) -> None:
        if self._complete or not names.fits() or not names.has_modules(sys.modules["mergekit"]):
            return
        try:
            from mergekit_spectral.methods.catalog import spectral_methods

            ours = spectral_methods(list(super().values()))
        except Exception as error:
            _warn_once(error)
            return
        with self._lock:
            if self._complete:
                return
            for method in ours:
                name = method.spec.name
                if name not in self:
                    self[name] = method
                else:
                    LOG.warning(
                        "a merge method named %r is registered already, so recipes get that one "
                        "and not mergekit-spectral's.",
                        name,
                    )
            self._complete = True


class EvolvedParameters(dict[str, list[str]]):
    """For each method, the parameters that `mergekit-evolve` varies for each input.

    It asks whether a method is in the table and for the entry of one method. For ours, the answer
    is what the method says, so the table needs no entries of them. Others stay as they are.
    """

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or self._of_ours(name) is not None

    def __missing__(self, name: str) -> list[str]:
        own = self._of_ours(name)
        if own is None:
            raise KeyError(name)
        return own

    def _of_ours(self, name: object) -> list[str] | None:
        from mergekit import merge_methods

        method = next((m for m in merge_methods.registered_methods() if m.spec.name == name), None)
        if not is_spectral(method):
            return None

        from mergekit_spectral.host.evolution import evolved_names

        return evolved_names(method)


def is_spectral(method: Any) -> TypeGuard[SpectralMethod]:
    """Whether a method is one of ours, found out without importing them."""
    base = sys.modules.get("mergekit_spectral.methods.base")
    return isinstance(method, getattr(base, "SpectralMethod", ()))


_warned = False


def _warn_once(error: Exception) -> None:
    """Log why our methods cannot be imported. They are tried again at the next look-up."""
    global _warned
    if not _warned:
        _warned = True
        LOG.warning(
            "mergekit-spectral's methods cannot be imported, and mergekit continues without them: "
            "%s: %s.",
            type(error).__name__,
            str(error).rstrip("."),
        )
