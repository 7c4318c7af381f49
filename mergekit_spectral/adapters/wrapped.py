"""Updates of parameters other than a layer's weight: peft's `target_parameters`."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from mergekit_spectral.adapters.base_model import BaseStructure, BaseWeights
from mergekit_spectral.adapters.lora import LoraAdapter, NotAProductError, Product
from mergekit_spectral.adapters.stored_tensors import CODES, Shape
from mergekit_spectral.adapters.tensor_names import find_name
from mergekit_spectral.errors import MergeError
from mergekit_spectral.spectral import dtype_name


@dataclass(frozen=True)
class _Target:
    """A parameter and the factors that change it.

    Attributes:
        key: the parameter's name in the adapter.
        name: the parameter's name in the model.
        module: the module that has the parameter.
        shape: the parameter's shape: [rows, columns], or [matrices, rows, columns] for a stack.
        B: key of the left factor.
        A: key of the right factor.
        sides: number of B's rows and number of A's columns.
    """

    key: str
    name: str
    module: nn.Module
    shape: Shape
    B: str
    A: str
    sides: Shape

    @property
    def is_stack(self) -> bool:
        """Whether it is a stack of several matrices, such as fused experts."""
        return len(self.shape) == 3 and self.shape[0] > 1

    @property
    def is_transposed(self) -> bool:
        """Whether the module declares that its stacks are [matrices, in, out]."""
        return bool(getattr(self.module, "is_transposed", False))

    def possible_layouts(self) -> set[bool]:
        """Return the layouts that the shapes allow: False for B·A, True for its transpose."""
        matrix = self.shape[-2:]
        layouts = {False} if self.sides == matrix else set()
        # To a single matrix peft always adds B·A, whatever `is_transposed` is.
        return layouts | ({True} if self.is_stack and self.sides[::-1] == matrix else set())


def mark_wrapped_modules(adapter: LoraAdapter, structure: BaseStructure) -> LoraAdapter:
    """Return a copy of the adapter in which `wrapped` has all modules that belong there.

    These are the modules of which the adapter changes other parameters than the weight. The
    adapter's files do not always show this: the factors of all experts together can have the same
    number of rows as the factor of a linear layer. They are then in `updates`, as an update of the
    module's weight, until the model's structure shows what they are.
    """
    marked = copy.copy(adapter)
    marked.updates, marked.wrapped = dict(adapter.updates), dict(adapter.wrapped)
    for name, update in adapter.updates.items():
        module = name.removesuffix(".weight")
        parameters = _parameters(adapter, module, structure)
        of_layer = [key for key, value in parameters.items() if key == "weight" and value.ndim == 2]
        if isinstance(update, Product) and len(parameters) > len(of_layer):
            marked.wrapped[module] = update.B, update.A
            del marked.updates[name]
    return marked


def find_wrapped_updates(
    adapter: LoraAdapter, base: str, weights: BaseWeights, structure: BaseStructure
) -> dict[str, Product]:
    """Return the updates of the parameters in an adapter's `wrapped`, by the parameters' names.

    Args:
        adapter: the adapter, from `mark_wrapped_modules`.
        base: the base's name, for messages.
        weights: the base's weights.
        structure: the base's modules.

    Raises:
        NotAProductError: if a parameter cannot be found, or mergekit does not merge it as one
            tensor.
        MergeError: if mergekit does not find a parameter in the base's files, or its factors have
            another rank or shape.
    """
    targets = list(_find_targets(adapter, base, weights, structure))
    known_layouts = _find_layouts_by_shape(targets)
    found: dict[str, Product] = {}
    for target in targets:
        layouts = target.possible_layouts()
        if not layouts:
            shape = (*target.shape[:-2], *target.sides)
            raise adapter.shape_error(base, target.name, shape, target.shape)
        if len(layouts) == 2:
            same_kind = known_layouts[target.is_transposed]
            by_version = _is_transposed_by(adapter.peft_version, target.is_transposed)
            layouts = same_kind if len(same_kind) == 1 else {by_version}
        rank, alpha = _rank_and_alpha(adapter, target.key)
        found[target.name] = Product(
            target.B,
            target.A,
            rank,
            adapter.scale(rank, alpha),
            transposed=layouts == {True},
            experts=target.shape[0] if len(target.shape) == 3 else None,
        )
    return found


def is_targeted(adapter: LoraAdapter, parameter: str) -> bool:
    """Return whether `target_parameters` has a parameter, given by its name in the adapter."""
    targets = adapter.config.target_parameters or []
    return any(f".{parameter}".endswith(f".{target}") for target in targets)


def _find_targets(
    adapter: LoraAdapter, base: str, weights: BaseWeights, structure: BaseStructure
) -> Iterator[_Target]:
    """Yield the parameters that belong to the factors in `wrapped`.

    peft wraps the parameters of one module one after the other. The factors of the last parameter
    have the module's own name. The factors of the parameter before it have this name with
    ``.base_layer`` appended, those of the parameter before that have ``.base_layer`` twice, etc.
    """
    for wrapped, (B, A) in adapter.wrapped.items():
        module, depth = wrapped.replace(".base_layer", ""), wrapped.count(".base_layer")
        parameters = _parameters(adapter, module, structure)
        if depth >= len(parameters):
            raise NotAProductError(adapter.name, f"LoRA on a parameter of {module}")
        own, parameter = list(parameters.items())[-1 - depth]
        key, shape = f"{module}.{own}", tuple(parameter.shape)
        module = find_name(structure.modules, module)
        name = f"{module}.{own}"
        if not structure.find_parts(name, weights.index.tensor_paths):
            raise _not_stored_error(adapter, base, name, weights)
        if len(shape) not in (2, 3) or not structure.is_merged_whole(name):
            raise NotAProductError(adapter.name, f"LoRA on the parameter {name}")
        rank, _ = _rank_and_alpha(adapter, key)
        matrices = shape[0] if len(shape) == 3 else 1
        shape_of_b, shape_of_a = adapter.wrapped_shapes(wrapped)
        if len(shape_of_b) != 2 or len(shape_of_a) != 2:
            raise adapter.shape_error(base, name, (*shape_of_b[:1], *shape_of_a[1:]), shape)
        # `LoraAdapter` has checked that B has as many columns as A has rows.
        if shape_of_a[0] != rank * matrices:
            of_all = f" for {matrices} experts" if len(shape) == 3 else ""
            raise adapter.rank_error(name, rank, f"{shape_of_a[0]} rows{of_all}")
        sides = shape_of_b[0], shape_of_a[1]
        yield _Target(key, name, structure.modules[module], shape, B, A, sides)


def _parameters(
    adapter: LoraAdapter, module: str, structure: BaseStructure
) -> dict[str, nn.Parameter]:
    """Return the parameters of a module that are in `target_parameters`, in the module's order."""
    if not adapter.config.target_parameters:
        return {}
    found = structure.modules.get(find_name(structure.modules, module), nn.Module())
    return {
        name: parameter
        for name, parameter in found.named_parameters(recurse=False)
        if is_targeted(adapter, f"{module}.{name}")
    }


def _rank_and_alpha(adapter: LoraAdapter, key: str) -> tuple[int, float]:
    ranks, alphas = adapter.ranks_and_alphas([key])
    return ranks[key], alphas[key]


def _find_layouts_by_shape(targets: list[_Target]) -> dict[bool, set[bool]]:
    """Return the layouts of the stacks whose shape allows only one, by `is_transposed`."""
    found: dict[bool, set[bool]] = defaultdict(set)
    for target in targets:
        layouts = target.possible_layouts()
        if target.is_stack and len(layouts) == 1:
            found[target.is_transposed] |= layouts
    return found


def _is_transposed_by(version: str | None, is_transposed: bool) -> bool:
    """Return whether the update of a stack is the transpose of B·A in a version of peft.

    Before peft 0.19 it always was. Since 0.19 it depends on the module's `is_transposed`: peft
    0.19.0 transposed where this is false, later versions transpose where it is true.

    Args:
        version: the version in the adapter's configuration; None for peft before 0.18.
        is_transposed: the module's `is_transposed`.
    """
    release = re.match(r"(\d+)\.(\d+)\.(\d+)", version or "")
    numbers = tuple(map(int, release.groups())) if release else (0, 17, 0)
    if numbers < (0, 19, 0):
        return True
    return is_transposed != (numbers == (0, 19, 0))


def _not_stored_error(
    adapter: LoraAdapter, base: str, parameter: str, weights: BaseWeights
) -> MergeError:
    module = parameter.rpartition(".")[0]
    codes = [
        name
        for name in weights.index.tensor_paths
        if name.startswith(f"{module}.") and weights.header(name)[1] in CODES
    ]
    advice = "merge the adapter into its base with peft instead."
    if codes:  # the codes of quantized weights
        first = min(codes, key=lambda name: (not name.startswith(parameter), name))
        advice = (
            f"the files contain {first} in {dtype_name(weights.header(first)[1])}, so they seem to "
            "be quantized: use the model before quantization, in float16 or bfloat16."
        )
    return MergeError(
        f"Adapter {adapter.name} changes {parameter}, which mergekit does not find in the files of "
        f"{base}; {advice}"
    )
