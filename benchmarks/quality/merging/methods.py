"""The methods that are compared, at their published settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """A merge method with its settings.

    Attributes:
        name: what it is called here, and in recipes unless `recipe_name` says otherwise.
        parameters: what the recipe says besides ``weight``, which is 1 for every input, and
            ``lambda``.
        scale: the published ``lambda``.
        random: whether a merge depends on a seed.
        recipe_name: in recipes, where several methods here share one there.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    random: bool = False
    recipe_name: str | None = None

    @property
    def merge_method(self) -> str:
        """What a recipe says."""
        return self.recipe_name or self.name


METHODS = {
    method.name: method
    for method in (
        # What the authors of TIES recommend for both where there is no validation set.
        Method("task_arithmetic", scale=0.4),
        Method("ties", {"density": 0.2}),
        # DARE and DELLA search the density for each set of models; mergekit's examples have 0.5.
        Method("dare_ties", {"density": 0.5}, random=True),
        Method("della", {"density": 0.5, "epsilon": 0.15}, random=True),
        Method("drm", {"density": 0.2}),
        # KnOTS runs TIES without trimming.
        Method("knots_ties", {"density": 1.0}),
        Method("knots_dare_ties", {"density": 0.5}, random=True),
        Method("star", {"eta": 40}),
        Method("iso"),
        Method("tsvm"),
        Method("actmat"),
    )
}

SCALES = (0.1, 0.2, 0.4, 0.7, 1.0, 1.7, 3.0, 5.0)
"""The ``lambda`` that each method may choose from on the validation examples: all the same."""
