"""Updates of parameters that are not a layer's weight: peft's `target_parameters`."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from mergekit_spectral.adapters.base_weights import CODES, BaseWeights, Shape
from mergekit_spectral.adapters.lora import LoraAdapter, NotAProductError, Product
from mergekit_spectral.adapters.structure import ModelStructure
from mergekit_spectral.adapters.tensor_names import name_in
from mergekit_spectral.errors import MergeError
from mergekit_spectral.spectral import dtype_name


@dataclass(frozen=True)
class _Target:
    """A parameter and the factors that change it.

    Attributes:
        key: its name in the adapter.
        name: its name in the model.
        module: whose parameter it is.
        shape: [rows, columns], or [matrices, rows, columns] of a stack.
        B: key of the left factor.
        A: key of the right factor.
        sides: the rows of B and the columns of A.
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
        """Whether the module says that its stacks are [matrices, in, out]."""
        return bool(getattr(self.module, "is_transposed", False))

    def layouts(self) -> set[bool]:
        """Return whether the update is B·A (False) or its transpose, as far as shapes show it."""
        matrix = self.shape[-2:]
        layouts = {False} if self.sides == matrix else set()
        # Of a single matrix peft adds B·A as it is, whatever the module says.
        return layouts | ({True} if self.is_stack and self.sides[::-1] == matrix else set())


def with_all_wrapped(adapter: LoraAdapter, structure: ModelStructure) -> LoraAdapter:
    """Return the adapter with every module in `wrapped` whose other parameters it changes.

    Its files alone do not show that where the factors of all experts together have as many rows as
    a linear layer's: they look like an update of the module's weight.
    """
    moved = copy.copy(adapter)
    moved.updates, moved.wrapped = dict(adapter.updates), dict(adapter.wrapped)
    for name, update in adapter.updates.items():
        module = name.removesuffix(".weight")
        parameters = _parameters(adapter, module, structure)
        of_layer = [key for key, value in parameters.items() if key == "weight" and value.ndim == 2]
        if isinstance(update, Product) and len(parameters) > len(of_layer):
            moved.wrapped[module] = update.B, update.A
            del moved.updates[name]
    return moved


def wrapped_updates(
    adapter: LoraAdapter, base: str, weights: BaseWeights, structure: ModelStructure
) -> dict[str, Product]:
    """Return the updates of the parameters in an adapter's `wrapped`, by the parameters' names.

    Args:
        adapter: with all such modules in `wrapped`, see `with_all_wrapped`.
        base: the base's name, for messages.
        weights: the base's weights.
        structure: the base's modules.

    Raises:
        NotAProductError: if a parameter cannot be found, or mergekit does not merge it as it is.
        MergeError: if mergekit does not find it in the base's files, or the factors are of another
            rank or shape.
    """
    targets = list(_targets(adapter, base, weights, structure))
    turned = _layouts_by_shape(targets)
    found: dict[str, Product] = {}
    for target in targets:
        layouts = target.layouts()
        if not layouts:
            shape = (*target.shape[:-2], *target.sides)
            raise adapter.shape_error(base, target.name, shape, target.shape)
        if len(layouts) == 2:
            own = turned[target.is_transposed]
            by_version = _is_turned(adapter.peft_version, target.is_transposed)
            layouts = own if len(own) == 1 else {by_version}
        rank, alpha = _settings(adapter, target.key)
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
    """Tell whether a parameter, by its name in the adapter, is in `target_parameters`."""
    targets = adapter.config.target_parameters or []
    return any(f".{parameter}".endswith(f".{target}") for target in targets)


def _targets(
    adapter: LoraAdapter, base: str, weights: BaseWeights, structure: ModelStructure
) -> Iterator[_Target]:
    """Yield the parameters that the wrapped modules stand for.

    peft wraps the parameters of one module one after the other. The factors of the last have the
    module's own name, of those before it the name with ``.base_layer``, once more for each step
    back.
    """
    for wrapped, (B, A) in adapter.wrapped.items():
        module, depth = wrapped.replace(".base_layer", ""), wrapped.count(".base_layer")
        parameters = _parameters(adapter, module, structure)
        if depth >= len(parameters):
            raise NotAProductError(adapter.name, f"LoRA on a parameter of {module}")
        own, parameter = list(parameters.items())[-1 - depth]
        key, shape = f"{module}.{own}", tuple(parameter.shape)
        module = name_in(structure.modules, module)
        name = f"{module}.{own}"
        if not structure.parts(name, weights.index.tensor_paths):
            raise _not_stored(adapter, base, name, weights)
        if len(shape) not in (2, 3) or not structure.is_planned(name):
            raise NotAProductError(adapter.name, f"LoRA on the parameter {name}")
        rank, _ = _settings(adapter, key)
        matrices = shape[0] if len(shape) == 3 else 1
        shape_of_b, shape_of_a = adapter.wrapped_shapes(wrapped)
        if len(shape_of_b) != 2 or len(shape_of_a) != 2:
            raise adapter.shape_error(base, name, (*shape_of_b[:1], *shape_of_a[1:]), shape)
        if shape_of_a[0] != rank * matrices:  # as many as B has columns
            of_all = f" for {matrices} experts" if len(shape) == 3 else ""
            raise adapter.rank_error(name, rank, f"{shape_of_a[0]} rows{of_all}")
        sides = shape_of_b[0], shape_of_a[1]
        yield _Target(key, name, structure.modules[module], shape, B, A, sides)


def _parameters(
    adapter: LoraAdapter, module: str, structure: ModelStructure
) -> dict[str, nn.Parameter]:
    """Return the parameters of a module that are in `target_parameters`, in the module's order."""
    if not adapter.config.target_parameters:
        return {}
    there = structure.modules.get(name_in(structure.modules, module), nn.Module())
    return {
        name: parameter
        for name, parameter in there.named_parameters(recurse=False)
        if is_targeted(adapter, f"{module}.{name}")
    }


def _settings(adapter: LoraAdapter, key: str) -> tuple[int, float]:
    ranks, alphas = adapter.settings([key])
    return ranks[key], alphas[key]


def _layouts_by_shape(targets: list[_Target]) -> dict[bool, set[bool]]:
    """Return the layouts of the stacks whose shape leaves one, by what their modules say."""
    found: dict[bool, set[bool]] = defaultdict(set)
    for target in targets:
        layouts = target.layouts()
        if target.is_stack and len(layouts) == 1:
            found[target.is_transposed] |= layouts
    return found


def _is_turned(version: str | None, is_transposed: bool) -> bool:
    """Tell whether the update of a stack is the transpose of B·A, by the version of peft.

    Before 0.19 it always was. 0.19.0 asked the module, and did the opposite of what it says.

    Args:
        version: in the adapter's configuration, since peft 0.18.
        is_transposed: what the module says.
    """
    release = re.match(r"(\d+)\.(\d+)\.(\d+)", version or "")
    numbers = tuple(map(int, release.groups())) if release else (0, 17, 0)
    if numbers < (0, 19, 0):
        return True
    return is_transposed != (numbers == (0, 19, 0))


def _not_stored(
    adapter: LoraAdapter, base: str, parameter: str, weights: BaseWeights
) -> MergeError:
    module = parameter.rpartition(".")[0]
    codes = [
        name
        for name in weights.index.tensor_paths
        if name.startswith(f"{module}.") and weights.header(name)[1] in CODES
    ]
    advice = "merge the adapter into its base with peft instead."
    if codes:
        first = min(codes, key=lambda name: (not name.startswith(parameter), name))
        advice = (
            f"they hold {first}, of {dtype_name(weights.header(first)[1])}, so they seem to be "
            "quantized: take the model that they were made from, in float16 or bfloat16."
        )
    return MergeError(
        f"Adapter {adapter.name} changes {parameter}, which mergekit does not find in the files of "
        f"{base}; {advice}"
    )
