"""The modules of an adapter's base, as transformers builds them, without their weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial

import torch
import transformers
from mergekit.architecture import arch_info_for_config
from mergekit.architecture.conversion import (
    can_convert_checkpoint_keys,
    convert_checkpoint_tensors,
)
from mergekit.common import get_auto_cls
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    get_model_conversion_mapping,
)
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    WeightTransform,
    rename_source_key,
)
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

LOG = logging.getLogger(__name__)


class ModelStructure:
    """The modules of a model, built on the meta device when they are first asked for.

    peft decides by a layer's class what an adapter's tensors mean. Neither the adapter's files nor
    the base's hold that class, so it is looked up in the model itself.

    Args:
        build: returns the model. It may raise any error; nothing is known of the model then.
    """

    def __init__(self, build: Callable[[], nn.Module]):
        self._build = build

    @classmethod
    def of(cls, config: PretrainedConfig, trust_remote_code: bool = False) -> ModelStructure:
        """Return the structure of the model that a configuration describes."""
        return cls(partial(_from_config, config, trust_remote_code))

    @cached_property
    def modules(self) -> Mapping[str, nn.Module]:
        """Every module by its name; empty if the model cannot be built."""
        return {} if self._model is None else dict(self._model.named_modules())

    def is_conv1d(self, module: str) -> bool:
        """Tell whether a module is transformers' Conv1D, which stores its weight as [in, out]."""
        return isinstance(self.modules[module], Conv1D)

    def module_names(self, stored: Collection[str]) -> dict[str, str]:
        """Return the names that transformers gives to tensors which files hold under others.

        Args:
            stored: the names in the files.

        Returns:
            The name in the files of each tensor, by its name in the model. A tensor that loading
            makes out of several is not in it.
        """
        if not isinstance(self._model, transformers.PreTrainedModel):
            return {}
        renamings = [
            transform
            for transform in get_model_conversion_mapping(self._model)
            if isinstance(transform, WeightRenaming)
        ]
        own = self._model.state_dict().keys()
        found: dict[str, str] = {}
        for name in stored:
            renamed = name
            for renaming in renamings:
                renamed, _ = renaming.rename_source_key(renamed)
            if renamed != name and renamed in own:
                found[renamed] = name
        return found

    def is_found_by_mergekit(self, name: str, stored: Collection[str]) -> bool:
        """Tell whether mergekit can load a tensor that the files hold under another name.

        It applies the renamings of the model's type only, not those of its class and its parts.
        """
        return can_convert_checkpoint_keys(self._model_type, set(stored), name)

    def parts(self, name: str, stored: Collection[str]) -> list[str]:
        """Return the names of the tensors in the files that mergekit makes a tensor of.

        Args:
            name: of the tensor in the model.
            stored: the names in the files.

        Returns:
            `name` itself if it is stored; nothing if mergekit has no way to make it.
        """
        if name in stored:
            return [name]
        mapping: Callable[..., list[WeightTransform] | None] = get_checkpoint_conversion_mapping
        transforms = mapping(self._model_type) or []
        renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
        converters = [each for each in transforms if isinstance(each, WeightConverter)]
        parts = [s for s in stored if rename_source_key(s, renamings, converters)[0] == name]
        return parts if can_convert_checkpoint_keys(self._model_type, set(parts), name) else []

    def converted(self, name: str, parts: Mapping[str, Callable[[], Tensor]]) -> Tensor:
        """Return the tensor that mergekit makes of `parts`, which are read when they are needed."""
        tensor = convert_checkpoint_tensors(self._model_type, parts, name)
        assert tensor is not None  # as `parts` has found
        return tensor

    def is_planned(self, name: str) -> bool:
        """Tell whether mergekit merges a tensor of the model as it is, and not in parts."""
        assert isinstance(self._model, transformers.PreTrainedModel)
        config = self._model.config
        architecture = arch_info_for_config(config)
        return architecture is None or any(
            weight.name == name for weight in architecture.all_weights(config)
        )

    @property
    def _model_type(self) -> str:
        assert isinstance(self._model, transformers.PreTrainedModel)
        return str(self._model.config.model_type)

    @cached_property
    def _model(self) -> nn.Module | None:
        try:
            with torch.device("meta"), no_init_weights():
                return self._build()
        except Exception as error:  # a model's own code may raise any
            LOG.debug("The base model cannot be built without its weights: %s", error)
            return None


def _from_config(config: PretrainedConfig, trust_remote_code: bool) -> nn.Module:
    (architecture,) = config.architectures or [""]
    config = copy.deepcopy(config)
    known = getattr(transformers, architecture, None)
    model: nn.Module
    if known is not None and not (trust_remote_code and getattr(config, "auto_map", None)):
        model = known(config)
    else:
        auto = get_auto_cls(architecture)
        model = auto.from_config(config, trust_remote_code=trust_remote_code)
    return model
