"""The public names of `mergekit_spectral.adapters` that need peft and transformers."""

from mergekit_spectral.adapters.adapter_files import find_adapter as find_adapter
from mergekit_spectral.adapters.base_model import BaseStructure as BaseStructure
from mergekit_spectral.adapters.base_model import BaseWeights as BaseWeights
from mergekit_spectral.adapters.lora import LoraAdapter as LoraAdapter
from mergekit_spectral.adapters.lora import NotAProductError as NotAProductError
from mergekit_spectral.adapters.writing import LayerKind as LayerKind
from mergekit_spectral.adapters.writing import NewLayer as NewLayer
from mergekit_spectral.adapters.writing import check_folder as check_folder
from mergekit_spectral.adapters.writing import write_adapter as write_adapter
