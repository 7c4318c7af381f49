"""Tensors of a model that a merge does not read, so that the merged model lacks them.

mergekit plans a merge by architecture, and reads and writes no other tensors. For architectures
that it infers, the plan may lack most of the model.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import transformers
from mergekit.common import ModelReference
from transformers import PretrainedConfig

from mergekit_spectral.adapters.stored_tensors import Header
from mergekit_spectral.adapters.tensor_names import kind_of
from mergekit_spectral.host.checkpoints import StoredWeights
from mergekit_spectral.host.dense_inputs import WeightLoader
from mergekit_spectral.host.mergeable import is_quantized

LOG = logging.getLogger(__name__)

_RECOMPUTED = (".inv_freq", ".masked_bias")


@dataclass(frozen=True)
class UnreadWeights:
    """What a merge leaves out of one model.

    Attributes:
        needed: names of weights that the merged model would load with random values.
        ignored: names of weights that transformers does not load either, such as extra layers.
    """

    needed: Sequence[str]
    ignored: Sequence[str]

    def sentence(self, model: object, total: int) -> str:
        """Say what the merged model lacks.

        Args:
            model: whose tensors they are.
            total: how many tensors that model has.
        """
        first = ", ".join(self.needed[:3])
        return (
            f"the merged model lacks {len(self.needed)} of the {total} tensors of {model}, the "
            f"first {'is' if len(self.needed) == 1 else 'are'} {first}: mergekit's plan for this "
            "architecture does not have them, under any method, so they would be random when the "
            "merged model is loaded"
        )


def find_unread_weights(
    headers: Mapping[str, Header],
    read: Collection[str],
    config: PretrainedConfig,
    some_layers: bool,
) -> UnreadWeights:
    """Return the weights of a model that a merge does not read.

    Buffers and weights that are tied to others are not counted. Codes of quantized weights count as
    weights.

    Args:
        headers: shapes and dtypes of the model's tensors.
        read: the names of the tensors that the merge reads.
        config: the model's configuration.
        some_layers: whether the recipe selects layers, and so leaves out others deliberately.
    """
    kinds = set(map(kind_of, read)) if some_layers else set()
    missing = sorted(
        name
        for name, (_, dtype) in headers.items()
        if name not in read
        and (dtype.is_floating_point or is_quantized(name, dtype, headers))
        and not name.endswith(_RECOMPUTED)
        and kind_of(name) not in kinds
    )
    if not missing:
        return UnreadWeights((), ())
    (architecture,) = config.architectures or [""]
    model_class = getattr(transformers, architecture, None)
    if getattr(config.get_text_config(), "tie_word_embeddings", False):
        tied = _patterns(model_class, "_tied_weights_keys")
        missing = [name for name in missing if not _matches(name, tied)]
    unexpected = _patterns(model_class, "_keys_to_ignore_on_load_unexpected")
    ignored = [name for name in missing if _matches(name, unexpected)]
    return UnreadWeights([name for name in missing if name not in ignored], ignored)


def warn_of_unread_weights(
    model: ModelReference, loader: WeightLoader, some_layers: bool, trust_remote_code: bool
) -> None:
    """Log a warning if a merge that has ended did not read all weights of its base model.

    Args:
        model: the base.
        loader: that mergekit has read it with.
        some_layers: whether the recipe chooses layers.
        trust_remote_code: mergekit's option.
    """
    names = loader.index.tensor_paths
    read = loader.read_names
    stored = StoredWeights(loader.loader)
    unread = [name for name in names if isinstance(name, str) and name not in read]
    headers = {name: stored.header(name) for name in unread}
    lacking = find_unread_weights(headers, read, model.config(trust_remote_code), some_layers)
    if lacking.needed:
        LOG.warning("%s.", lacking.sentence(model, len(names)))


def _patterns(model_class: object, attribute: str) -> list[str]:
    return list(getattr(model_class, attribute, None) or ())


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)
