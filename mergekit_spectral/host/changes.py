"""What we change in mergekit when it is imported: two tables of methods and four functions.

Each change is made at the end of the import of one module and imports nothing. Our methods are
imported when somebody first asks mergekit for them. Three more functions are changed at the first
merge with one of our methods, in `run_merge` and `model_card` beside this file.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mergekit_spectral.host import names
from mergekit_spectral.host.registration import EvolvedParameters, MethodTable, is_spectral

if TYPE_CHECKING:
    from mergekit_spectral.methods import SpectralMethod

Function = Callable[..., Any]


def adapt(module: ModuleType) -> None:
    """Check one of mergekit's modules, and change it if it is in `CHANGES`.

    Raises nothing, because an error here would look like a failed import of mergekit.
    """
    try:
        if names.has_names(module) and names.fits() and module.__name__ in CHANGES:
            CHANGES[module.__name__](module)
    except Exception as error:
        names.refuse(f"{module.__name__}: {type(error).__name__}: {error}")


def replace_table(registry: ModuleType) -> None:
    """Put our methods behind mergekit's own.

    Args:
        registry: the module ``mergekit.merge_methods.registry``.
    """
    table = vars(registry)["_METHODS"]
    if not isinstance(table, MethodTable):
        vars(registry)["_METHODS"] = MethodTable(table)


def wrap_run_merge(merge: ModuleType) -> None:
    """Let `run_merge` do what `mergekit_spectral.host.run_merge` says, for our methods only.

    Args:
        merge: the module ``mergekit.merge``.
    """
    known = {"merge_config", "out_path", "options"}
    missing = known - inspect.signature(merge.run_merge).parameters.keys()
    if missing:
        names.refuse(f"{merge.__name__}.run_merge has no parameter {', '.join(sorted(missing))}")
        return
    _wrap(merge, "run_merge", _run_merge)


def _run_merge(run_merge: Function, *args: Any, **kwargs: Any) -> Any:
    if not names.fits():
        return run_merge(*args, **kwargs)

    from mergekit import merge_methods

    given = inspect.signature(run_merge).bind(*args, **kwargs).arguments
    config, options = given["merge_config"], given["options"]
    method = merge_methods.get(config.merge_method)
    if not is_spectral(method):
        return run_merge(*args, **kwargs)

    from mergekit_spectral.host.run_merge import spectral_merge

    with spectral_merge(method, config, options, out=str(given["out_path"])):
        return run_merge(*args, **kwargs)


def wrap_tensor_names(auto: ModuleType) -> None:
    """Let mergekit infer architectures of ``base+adapter`` inputs.

    It asks each input for the names in its files, and ``base+adapter`` has no files of its own; our
    loader for it has the names.

    Args:
        auto: the module ``mergekit.architecture.auto``.
    """
    _wrap(auto, "get_model_tensor_names", _tensor_names)


def _tensor_names(of_files: Function, *args: Any, **kwargs: Any) -> Any:
    tasks = sys.modules.get("mergekit.io.tasks")
    loaders = tasks.LoaderCache.loaders if tasks is not None and names.fits() else {}
    model = args[0] if args else kwargs["model"]
    if model in loaders:
        return list(loaders[model].index.tensor_paths)
    return of_files(*args, **kwargs)


def adapt_genomes(genome: ModuleType) -> None:
    """Let `mergekit-evolve` vary our methods' parameters, within their valid ranges.

    A missing base is refused when a genome is made, before workers are started.

    Args:
        genome: the module ``mergekit.evo.genome``.
    """
    table = vars(genome)["METHOD_PARAM_MAPS"]
    if not isinstance(table, EvolvedParameters):
        vars(genome)["METHOD_PARAM_MAPS"] = EvolvedParameters(table)
    _wrap(genome.ModelGenome, "__init__", _init_genome)
    _wrap(genome.ModelGenome, "genotype_merge_config", _genotype_merge_config)


def _init_genome(init: Function, genome: Any, *args: Any, **kwargs: Any) -> None:
    init(genome, *args, **kwargs)
    if method := _spectral_method_of(genome):
        method.require_base(genome.definition.base_model)


def _genotype_merge_config(to_recipe: Function, genome: Any, genotype: Any) -> Any:
    if method := _spectral_method_of(genome):
        from mergekit_spectral.host.evolution import in_valid_range

        genotype = in_valid_range(method, genome._to_torch(genotype))
    return to_recipe(genome, genotype)


def _spectral_method_of(genome: Any) -> SpectralMethod | None:
    if not names.fits():
        return None

    from mergekit import merge_methods

    method = merge_methods.get(genome.definition.merge_method)
    return method if is_spectral(method) else None


def _wrap(module: ModuleType | type, name: str, around: Function) -> None:
    """Replace a function by a plain one of the same name, which pickle finds there."""
    original = getattr(module, name)
    if getattr(original, _MARK, False):
        return

    @wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(wrapper, _MARK, True)
    setattr(module, name, wrapper)


_MARK = "_mergekit_spectral"

CHANGES: dict[str, Callable[[ModuleType], None]] = {
    "mergekit.merge_methods.registry": replace_table,
    "mergekit.merge": wrap_run_merge,
    "mergekit.architecture.auto": wrap_tensor_names,
    "mergekit.evo.genome": adapt_genomes,
}
