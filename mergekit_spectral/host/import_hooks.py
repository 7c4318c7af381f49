"""Call a function at the end of a module's import, whenever that is.

wrapt has post-import hooks too. They are not used because they do not survive a reload of the
module, run too early for a module that is half imported, and would make every ``import torch``
depend on wrapt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Hook = Callable[[ModuleType], None]

_hooks: dict[str, Hook] = {}


def when_imported(name: str, hook: Hook) -> None:
    """Call `hook` with a module each time its code has run: now, later, and after a reload.

    The hook runs in the thread that imports the module, which holds the module's import lock. So
    that no two threads wait for each other, it must not import anything itself.

    Args:
        name: the module's full name. It has one hook at most.
        hook: must raise nothing, and must not change a module that it has changed before.
    """
    _hooks[name] = hook
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    module = sys.modules.get(name)
    if module is None:
        return
    spec = module.__spec__
    if type(spec) is ModuleSpec and _is_unfinished(spec):
        spec.__class__ = _UnfinishedSpec
        if _is_unfinished(spec):
            return
    hook(module)


class _Finder:
    """Finds a module where the finders after it do, and puts its hook behind its loader."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        hook = _hooks.get(name)
        if hook is None:
            return None
        for finder in self._later_finders():
            spec: ModuleSpec | None = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, hook)  # type: ignore[assignment]
                return spec
        return None

    def _later_finders(self) -> Iterator[Any]:
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else finders:
            if hasattr(finder, "find_spec"):
                yield finder


class _Loader:
    """A module's own loader, which calls a hook after it. The module shows its own loader only."""

    def __init__(self, loader: Any, hook: Hook):
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # a copy that has no attributes yet
            raise AttributeError(name)
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._hook(module)


class _UnfinishedSpec(ModuleSpec):
    """The spec of a module whose import had begun before its hook was known.

    ``import mergekit.merge`` does that: it is what imports torch. Python's import system sets
    `_initializing` to False when the module's code has run, before other threads may go on.
    """

    @property
    def _initializing(self) -> bool:
        return bool(vars(self)["_initializing"])

    @_initializing.setter
    def _initializing(self, value: bool) -> None:
        if not value:
            self.__class__ = ModuleSpec  # type: ignore[assignment]
            module = sys.modules.get(self.name)  # None if the import failed
            if module is not None and module.__spec__ is self:
                _hooks[self.name](module)
        vars(self)["_initializing"] = value


def _is_unfinished(spec: ModuleSpec) -> bool:
    return bool(getattr(spec, "_initializing", False))
