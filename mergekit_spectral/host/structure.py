"""The structure of an adapter's base model, as transformers builds it, without its weights.

The structure has the modules, maps the names of tensors between the files and the model, and
assembles tensors that the files hold in parts, such as stacked experts.
"""

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

from mergekit_spectral.adapters.base_model import BaseStructure

LOG = logging.getLogger(__name__)


class ModelStructure(BaseStructure):
    """The modules of a model, built on the meta device when they are first needed.

    peft decides by a layer's class what an adapter's tensors mean. The class is neither in the
    adapter's files nor in the base's, so it is looked up in the model itself.

    Args:
        build: returns the model, on the default device. If it raises an error, the structure has
            no modules.
    """

    def __init__(self, build: Callable[[], nn.Module]):
        self._build = build

    @classmethod
    def of(cls, config: PretrainedConfig, trust_remote_code: bool = False) -> ModelStructure:
        """Return the structure of the model that a configuration describes."""
        return cls(partial(_from_config, config, trust_remote_code))

    @cached_property
    def model(self) -> nn.Module:
        """The model, whose weights have no values. Raises what `build` raises."""
        with torch.device("meta"), no_init_weights():
            return self._build()

    @cached_property
    def modules(self) -> Mapping[str, nn.Module]:
        return {} if self._model is None else dict(self._model.named_modules())

    def is_conv1d(self, module: str) -> bool:
        return isinstance(self.modules[module], Conv1D)

    def find_renamed(self, stored: Collection[str]) -> dict[str, str]:
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
        # transformers also renames tensors by the class of the model and by the types of its
        # submodels. mergekit only applies the renamings of the model's type.
        return can_convert_checkpoint_keys(self._model_type, set(stored), name)

    def find_parts(self, name: str, stored: Collection[str]) -> list[str]:
        if name in stored:
            return [name]
        mapping: Callable[..., list[WeightTransform] | None] = get_checkpoint_conversion_mapping
        transforms = mapping(self._model_type) or []
        renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
        converters = [each for each in transforms if isinstance(each, WeightConverter)]
        parts = [s for s in stored if rename_source_key(s, renamings, converters)[0] == name]
        return parts if can_convert_checkpoint_keys(self._model_type, set(parts), name) else []

    def assemble(self, name: str, parts: Mapping[str, Callable[[], Tensor]]) -> Tensor:
        """Assemble a tensor of the model from stored tensors, as mergekit does.

        Args:
            name: the tensor's name in the model.
            parts: functions that read the stored tensors, by the names from `find_parts`.
        """
        tensor = convert_checkpoint_tensors(self._model_type, parts, name)
        assert tensor is not None  # `find_parts` returns only parts that can be assembled
        return tensor

    def is_merged_whole(self, name: str) -> bool:
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
            return self.model
        except Exception as error:  # the model's code can raise any exception
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
