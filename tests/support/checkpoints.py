"""Write tiny checkpoints, adapters and tokenizers with transformers and peft."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedModel, PreTrainedTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ("<unk>", "<s>", "</s>", *LETTERS)
DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}

VISION = {"num_attention_heads": 4, "image_size": 16, "patch_size": 8, "hidden_size": 32}


@dataclass(frozen=True)
class Family:
    """Folders of a base checkpoint and of the models fine-tuned from it."""

    base: Path
    tuned: tuple[Path, ...]


def llama(vocab_size: int = len(VOCABULARY), **config: object) -> PreTrainedModel:
    return _new("Llama", "LlamaForCausalLM", vocab_size=vocab_size, **{**DECODER, **config})


def llama_classifier(**config: object) -> PreTrainedModel:
    settings = {"vocab_size": len(VOCABULARY), "pad_token_id": 0, **DECODER, **config}
    return _new("Llama", "LlamaForSequenceClassification", **settings)


def mistral(vocab_size: int = len(VOCABULARY), **config: object) -> PreTrainedModel:
    return _new("Mistral", "MistralForCausalLM", vocab_size=vocab_size, **{**DECODER, **config})


def granite(vocab_size: int = len(VOCABULARY), **config: object) -> PreTrainedModel:
    """Return a model of an architecture with optional biases in mergekit."""
    return _new("Granite", "GraniteForCausalLM", vocab_size=vocab_size, **{**DECODER, **config})


def mixtral() -> PreTrainedModel:
    """Return a model whose files have one tensor for each expert; mergekit stacks them."""
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    return _new("Mixtral", "MixtralForCausalLM", vocab_size=len(VOCABULARY), **experts, **DECODER)


def qwen3_moe(**config: object) -> PreTrainedModel:
    """Return a model whose files have one tensor for each expert; mergekit stacks them."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    settings = {"vocab_size": len(VOCABULARY), "head_dim": 8, **DECODER, **experts, **config}
    return _new("Qwen3Moe", "Qwen3MoeForCausalLM", **settings)


def gpt_oss(**config: object) -> PreTrainedModel:
    """Return a model with stacked experts, [experts, in, out], and with biases of the experts.

    The experts are also stacked in the files.
    """
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
    settings = {"vocab_size": len(VOCABULARY), **DECODER, **experts}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    return _new("GptOss", "GptOssForCausalLM", **{**settings, **rope, **config})


def llama4(**config: object) -> PreTrainedModel:
    """Return a model with stacked experts, [experts, in, out], without `is_transposed`."""
    experts = {"num_local_experts": 4, "interleave_moe_layer_step": 1, "head_dim": 8}
    settings = {"vocab_size": len(VOCABULARY), **DECODER, **experts, **config}
    text = transformers.Llama4TextConfig(**settings)
    vision = transformers.Llama4VisionConfig(
        **{**VISION, "intermediate_size": 128, "image_size": 28, "patch_size": 14},
        num_hidden_layers=1,
        vision_output_dim=32,
        projector_input_dim=32,
        projector_output_dim=32,
    )
    return _new(
        "Llama4",
        "Llama4ForConditionalGeneration",
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        pad_token_id=0,
    )


def qwen2(**config: object) -> PreTrainedModel:
    """Return a model with biases in q_proj, k_proj and v_proj."""
    settings = {"vocab_size": len(VOCABULARY), **DECODER, **config}
    return _new("Qwen2", "Qwen2ForCausalLM", **settings)


def qwen2_moe() -> PreTrainedModel:
    """Return a model with a weight of one row, `shared_expert_gate`, in each layer."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2}
    sizes = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 24}
    settings = {"vocab_size": len(VOCABULARY), **DECODER, **experts, **sizes}
    return _new("Qwen2Moe", "Qwen2MoeForCausalLM", **settings)


def gpt2(**config: object) -> PreTrainedModel:
    """Return a model with weights [in, out], in transformers' Conv1D."""
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    tokens = {"vocab_size": len(VOCABULARY), "bos_token_id": 1, "eos_token_id": 2}
    return _new("GPT2", "GPT2LMHeadModel", **{**sizes, **tokens, **config})


def opt() -> PreTrainedModel:
    """Return a model of an architecture that mergekit has no definition of."""
    return _new(
        "OPT",
        "OPTForCausalLM",
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )


def t5() -> PreTrainedModel:
    return _new(
        "T5",
        "T5ForConditionalGeneration",
        vocab_size=len(VOCABULARY),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_heads=4,
        num_layers=2,
        num_decoder_layers=2,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )


def llava() -> PreTrainedModel:
    """Return a model whose modules have other names than their tensors in the files."""
    settings = {"vocab_size": len(VOCABULARY), **DECODER}
    return _new(
        "Llava",
        "LlavaForConditionalGeneration",
        text_config=transformers.LlamaConfig(**settings),
        vision_config=transformers.CLIPVisionConfig(
            intermediate_size=48, num_hidden_layers=2, **VISION
        ),
        image_token_index=len(VOCABULARY) - 1,
        vision_feature_layer=-1,
    )


def gemma3() -> PreTrainedModel:
    """Return a model whose modules have other names than their tensors in the files."""
    settings = {"vocab_size": len(VOCABULARY), "head_dim": 8, **DECODER}
    return _new(
        "Gemma3",
        "Gemma3ForConditionalGeneration",
        text_config=transformers.Gemma3TextConfig(**settings),
        vision_config=transformers.SiglipVisionConfig(
            intermediate_size=48, num_hidden_layers=2, **VISION
        ),
        mm_tokens_per_image=4,
    )


def vit() -> PreTrainedModel:
    """Return a model whose modules have other names than their tensors in the files."""
    sizes = {"intermediate_size": 48, "num_hidden_layers": 2, **VISION}
    return _new("ViT", "ViTForImageClassification", **sizes)


def bert() -> PreTrainedModel:
    return _new(
        "Bert",
        "BertForSequenceClassification",
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        num_labels=3,
    )


def _new(family: str, architecture: str, **config: object) -> PreTrainedModel:
    torch.manual_seed(0)
    model_class = getattr(transformers, architecture)
    return model_class(getattr(transformers, f"{family}Config")(**config))


def fine_tuned(
    base: PreTrainedModel, seed: int, decay: float = 1.0, size: float = 0.02
) -> PreTrainedModel:
    """Return a copy of `base` with noise added to every weight, by default as large as the weights.

    The noise in each row is `decay` times as large as in the row before. With a decay below 1, the
    deltas have singular values of very different sizes.
    """
    generator = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(base)
    with torch.no_grad():
        for weight in model.parameters():
            noise = size * torch.randn(weight.shape, generator=generator)
            rows = decay ** torch.arange(len(weight))
            noise *= rows.view(-1, *[1] * (weight.ndim - 1))
            weight.add_(noise.to(weight.dtype))
    return model


def write_family(folder: Path, base: PreTrainedModel, count: int = 3, **save: object) -> Family:
    """Save `base` and `count` models fine-tuned from it, in the dtype of `base`."""
    base.save_pretrained(folder / "base", **save)
    tuned = tuple(folder / f"tuned-{number}" for number in range(1, count + 1))
    for seed, path in enumerate(tuned, start=1):
        fine_tuned(base, seed).save_pretrained(path, **save)
    return Family(folder / "base", tuned)


def write_adapter(
    folder: Path,
    base: PreTrainedModel,
    seed: int,
    targets: Sequence[str] | str,
    rank: int = 4,
    **config: object,
) -> Path:
    """Save a LoRA adapter on `base` in which every trainable tensor has changed.

    A and B are random, whereas peft initializes B with zeros. Noise is also added to trainable
    tensors that peft initializes with the base's values. `config` is for peft's `LoraConfig`.
    """
    torch.manual_seed(seed)
    targets = targets if isinstance(targets, str) else list(targets)
    settings = {"r": rank, "target_modules": targets, "init_lora_weights": False, **config}
    model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**settings))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.02 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, *added: str) -> None:
    """Save a tokenizer with single letters, followed by the special tokens `added`."""
    letters = BPE(vocab={token: i for i, token in enumerate(VOCABULARY)}, merges=[])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(letters),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.add_tokens([AddedToken(token, special=True) for token in added])
    tokenizer.save_pretrained(folder)


def write_enlarged(folder: Path, model: PreTrainedModel, *added: str) -> None:
    """Save `model` with a tokenizer that has the special tokens `added`, and their embeddings."""
    torch.manual_seed(0)
    enlarged = copy.deepcopy(model)
    enlarged.resize_token_embeddings(len(VOCABULARY) + len(added), mean_resizing=False)
    enlarged.save_pretrained(folder)
    write_tokenizer(folder, *added)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Load a checkpoint with transformers, and return a copy of every tensor, also of tied ones.

    Files may be memory-mapped. The copies do not change when a test overwrites the files.
    """
    config = transformers.AutoConfig.from_pretrained(folder)
    model_class = getattr(transformers, config.architectures[0])
    model, report = model_class.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(report.values()), report
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the tensors of a saved model."""
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
