"""Cut a merge into parts of about equal cost, whose results fit into memory."""

from __future__ import annotations

from dataclasses import dataclass

from mergekit_spectral.checking.memory import describe_inputs, memory_of
from mergekit_spectral.checking.timing import Speeds, estimate_seconds
from mergekit_spectral.host.plan import PlannedMerge, PlannedTensor
from mergekit_spectral.methods.costs import Work
from mergekit_spectral.methods.mergekits_own import costs_of

USUAL = Speeds(products=5e10, cubes=1e9, entries=4e7)
"""What a usual core does in a second. The cut must be the same on all machines, so this is not
measured; only the ratios matter, and little depends on them."""
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
        work: operations of merging them.
        memory: bytes that are held at a time, without Python and without pages of mapped files.
        read_bytes: of the inputs' tensors.
        written_bytes: of the merged tensors.
    """

    number: int
    names: tuple[str, ...]
    work: Work
    memory: int
    read_bytes: int
    written_bytes: int

    def seconds(self, speeds: Speeds = USUAL) -> float:
        """Return how long a core of the given speeds takes."""
        return estimate_seconds(self.work, speeds, self.read_bytes + self.written_bytes, 0)

    @property
    def file(self) -> str:
        """The name of the file with the merged tensors."""
        return f"{self.number:05d}.safetensors"


def cut(merge: PlannedMerge) -> list[Part]:
    """Cut a merge into parts, in the order of its tensors.

    The parts depend on the recipe and the models' headers alone.
    """
    weights = [_weight(merge, tensor) for tensor in merge.tensors]
    most = sum(weight.seconds() for weight in weights) / PARTS
    most = min(max(most, SHORTEST), LONGEST)
    groups: list[list[Part]] = []
    seconds = written = 0.0
    for weight in weights:
        seconds, written = seconds + weight.seconds(), written + weight.written_bytes
        if not groups or seconds > most or written > LARGEST:
            groups.append([])
            seconds, written = weight.seconds(), weight.written_bytes
        groups[-1].append(weight)
    return [_join(number, group) for number, group in enumerate(groups)]


def _join(number: int, weights: list[Part]) -> Part:
    written = sum(weight.written_bytes for weight in weights)
    return Part(
        number=number,
        names=tuple(name for weight in weights for name in weight.names),
        work=sum((weight.work for weight in weights), Work()),
        # Merged tensors are kept until the part is written.
        memory=written + max(weight.memory - weight.written_bytes for weight in weights),
        read_bytes=sum(weight.read_bytes for weight in weights),
        written_bytes=written,
    )


def _weight(merge: PlannedMerge, tensor: PlannedTensor) -> Part:
    """Return a part of one weight."""
    costs = costs_of(merge.method)
    inputs, memory = describe_inputs(merge, costs, tensor), memory_of(merge, costs, tensor)
    return Part(
        number=0,
        names=(tensor.name,),
        work=Work() if inputs is None else costs.count_work(inputs),
        memory=memory.inputs + memory.working + memory.output,
        read_bytes=sum(memory.mapped.values()),
        written_bytes=memory.output,
    )
