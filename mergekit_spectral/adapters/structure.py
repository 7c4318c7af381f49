"""The modules of an adapter's base, as transformers builds them, without their weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial

import torch
import transformers
from mergekit.architecture.conversion import can_convert_checkpoint_keys
from mergekit.common import get_auto_cls
from torch import nn
from transformers import PretrainedConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming
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
        assert isinstance(self._model, transformers.PreTrainedModel)
        return can_convert_checkpoint_keys(self._model.config.model_type, set(stored), name)

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
