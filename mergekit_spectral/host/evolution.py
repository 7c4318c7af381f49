"""What `mergekit-evolve` varies of our methods, and how far.

It optimizes a vector of real numbers without bounds, the genome. For each group of layers, each
input and each filter, that has one number for each parameter that the method's entry in mergekit's
table lists. Of a weight, mergekit takes the absolute value, unless the genome allows negative
weights, and of a density the absolute value, but at most 1. It has no rule for other parameters.
"""

from __future__ import annotations

from torch import Tensor

from mergekit_spectral.methods import SpectralMethod


def evolved_names(method: SpectralMethod) -> list[str]:
    """Return the parameters that are varied for each input, ``weight`` first.

    mergekit starts the first one at 1 / T for T inputs, and all others at 1.
    """
    weight = [each.name for each in method.spec.input_parameters if each.name == "weight"]
    return [*weight, *method.evolved_parameters()]


def in_valid_range(method: SpectralMethod, genotype: Tensor) -> Tensor:
    """Return a genome with values that a recipe can have. Weights are left to mergekit.

    A number x stands for |x| units of its parameter, or for the closest value in its range.

    Args:
        method: the genome's.
        genotype: [layer groups, inputs, filters + 1, parameters], the last in the order of
            `evolved_names`.
    """
    ranges = method.evolved_parameters()
    genotype = genotype.clone()
    # mergekit refuses a vector of another length after this.
    for place, name in zip(range(genotype.shape[-1]), evolved_names(method), strict=False):
        if name in ranges:
            values = genotype[..., place].abs() * ranges[name].unit
            genotype[..., place] = values.clamp(ranges[name].low, ranges[name].high)
    return genotype
