"""Cut a merge into parts of about equal cost, whose results fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mergekit_spectral.checking.memory import describe_inputs, memory_of
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.methods.costs import Work
from mergekit_spectral.methods.mergekits_own import costs_of

PRODUCTS, CUBES, ENTRIES, BYTES = 5e10, 1e9, 4e7, 1e9
"""What a usual core does in a second. The cut must be the same on all machines, so these are not
measured; only their ratios matter, and little depends on them."""
PARTS = 64
"""As many parts as a merge is cut into, if they are neither too short nor too long."""
SHORTEST, LONGEST = 2.0, 60.0
"""Seconds of a part on a usual core: short ones cost time, and a worker that is lost loses one."""
LARGEST = 500 * 10**6
"""Bytes of a part's merged tensors, which are in memory together, if it has more than one."""


@dataclass(frozen=True)
class Part:
    """Weights that are merged by one worker.

    Attributes:
        number: from 0.
        names: of the tensors in the merged model.
        cost: seconds on a usual core.
        memory: bytes that are held at a time, without Python and without pages of mapped files.
        read_bytes: of the inputs' tensors.
    """

    number: int
    names: tuple[str, ...]
    cost: float
    memory: int
    read_bytes: int

    @property
    def file(self) -> str:
        """The name of the file with the merged tensors."""
        return f"{self.number:05d}.safetensors"


@dataclass(frozen=True)
class _Weight:
    name: str
    cost: float
    working: int
    written: int
    read: int


def cut(merge: PlannedMerge) -> list[Part]:
    """Cut a merge into parts, in the order of its tensors.

    The parts depend on the recipe and the models' headers alone.
    """
    weights = list(_weights(merge))
    cost = sum(weight.cost for weight in weights) / PARTS
    cost = min(max(cost, SHORTEST), LONGEST)
    parts: list[Part] = []
    group: list[_Weight] = []
    for weight in weights:
        together = [*group, weight]
        too_long = sum(each.cost for each in together) > cost
        if group and (too_long or sum(each.written for each in together) > LARGEST):
            parts.append(_part(len(parts), group))
            together = [weight]
        group = together
    return [*parts, _part(len(parts), group)] if group else parts


def _part(number: int, weights: list[_Weight]) -> Part:
    return Part(
        number,
        tuple(weight.name for weight in weights),
        sum(weight.cost for weight in weights),
        max(weight.working for weight in weights) + sum(weight.written for weight in weights),
        sum(weight.read for weight in weights),
    )


def _weights(merge: PlannedMerge) -> Iterator[_Weight]:
    costs = costs_of(merge.method)
    for tensor in merge.tensors:
        inputs = describe_inputs(merge, costs, tensor)
        work = Work() if inputs is None else costs.count_work(inputs)
        memory = memory_of(merge, costs, tensor)
        read = sum(memory.mapped.values())
        yield _Weight(
            name=tensor.name,
            cost=work.products / PRODUCTS
            + work.cubes / CUBES
            + work.entries / ENTRIES
            + (read + memory.output) / BYTES,
            working=memory.inputs + memory.working,
            written=memory.output,
            read=read,
        )
