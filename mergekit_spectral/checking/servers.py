"""Check whether inference servers apply a LoRA adapter as peft does, without reading its factors.

What each server accepts was read in its source: vLLM 0.32 (``lora/peft_helper.py``,
``lora/lora_model.py``), and llama.cpp as in llama-cpp-python 0.3.36 (``convert_lora_to_gguf.py``,
``src/llama-adapter.h``).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import peft
import yaml
from transformers import AutoConfig

from mergekit_spectral.adapters.adapter_files import AdapterFiles, find_adapter
from mergekit_spectral.adapters.lora import Addition, LoraAdapter, NotAProductError, Product

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's ``--max-lora-rank``."""

_UNKNOWN_BASE = "BASE"
_VLLM_WITH_PATTERNS = "0.32"
_VLLM_HEADS = {"score", "classifier"}


@dataclass(frozen=True)
class Serving:
    """Whether and how a server loads an adapter.

    Attributes:
        server: name of the server.
        reasons: why it refuses the adapter or applies it otherwise than peft; empty if it takes it.
        note: what it needs in addition, or None.
        commands: how it is started with the adapter; if there are reasons, what to run instead.
    """

    server: str
    reasons: tuple[str, ...]
    note: str | None
    commands: str

    @property
    def takes(self) -> bool:
        """Whether the server applies the adapter as peft does."""
        return not self.reasons


def check_servers(folder: Path) -> list[Serving]:
    """Check an adapter for vLLM and llama.cpp.

    Reads ``adapter_config.json`` and the names and shapes of the tensors.

    Args:
        folder: the adapter's folder, as peft's ``save_pretrained`` writes it.

    Raises:
        MergeError: there is no adapter in the folder, or it is damaged.
    """
    files = find_adapter(str(folder))
    base = files.config.base_model_name_or_path
    if base:
        return _check_files(files, folder, base)
    comment = f"# {_UNKNOWN_BASE} is the base model, which the adapter does not name"
    return [
        replace(each, commands=f"{comment}\n{each.commands}")
        for each in _check_files(files, folder, _UNKNOWN_BASE)
    ]


def _check_files(files: AdapterFiles, folder: Path, base: str) -> list[Serving]:
    if files.config.peft_type == peft.PeftType.LORA:
        try:
            adapter = LoraAdapter(files)
        except NotAProductError as refusal:
            what = refusal.what
        else:
            return [_check_vllm(adapter, folder, base), _check_llama_cpp(adapter, folder, base)]
    else:
        what = f"peft's {getattr(files.config.peft_type, 'value', files.config.peft_type)}"
    reason = f"the adapter uses {what}, which is not an added product of two matrices"
    commands = _into_base(folder, base)
    return [Serving(server, (reason,), None, commands) for server in ("vLLM", "llama.cpp")]


def _check_vllm(adapter: LoraAdapter, folder: Path, base: str) -> Serving:
    whole = [name for name in _whole(adapter) if not set(name.split(".")) & _VLLM_HEADS]
    reasons = list(_more_than_products(adapter, whole))
    if not whole and adapter.config.bias != "none":
        reasons.append(f"the adapter's `bias` is {adapter.config.bias}")
    if reasons:
        return Serving("vLLM", tuple(reasons), None, _into_base(folder, base))
    products = _products(adapter)
    rank = max([adapter.config.r, *(product.rank for _, product in products)])
    limit = next((each for each in VLLM_RANKS if each >= rank), None)
    if limit is None:
        reason = f"its rank is {rank}, and vLLM's limit is {VLLM_RANKS[-1]}"
        return Serving("vLLM", (reason,), None, _with_one_rank(folder, base, VLLM_RANKS[-1]))
    whole_scale = adapter.scale(adapter.config.r, adapter.config.lora_alpha)
    note = None
    if adapter.wrapped:
        note = f"adapters on fused experts ({_some(list(adapter.wrapped))}) were not tried"
    elif any(not math.isclose(product.scale, whole_scale) for _, product in products):
        note = (
            f"versions before {_VLLM_WITH_PATTERNS} ignore `rank_pattern` and `alpha_pattern`, "
            "and scale the adapter wrongly"
        )
    serve = ["vllm", "serve", base, "--enable-lora", "--max-lora-rank", str(limit)]
    serve += ["--lora-modules", f"{folder.resolve().name}={folder}"]
    return Serving("vLLM", (), note, shlex.join(serve))


def _check_llama_cpp(adapter: LoraAdapter, folder: Path, base: str) -> Serving:
    reasons = list(_more_than_products(adapter, _whole(adapter)))
    if adapter.wrapped:
        reasons.append(f"the adapter changes fused experts ({_some(list(adapter.wrapped))})")
    tied = [name for name, product in _products(adapter) if product.embedding or "lm_head" in name]
    ties = _ties_embeddings(base) if tied else False
    if ties:
        reasons.append(f"the adapter changes {_some(tied)}, and the base has one weight for both")
    if reasons:
        return Serving("llama.cpp", tuple(reasons), None, _into_base(folder, base))
    alpha = adapter.config.lora_alpha
    applied = {name: alpha / each.rank if alpha else 1.0 for name, each in _products(adapter)}
    wrong = [
        (name, product)
        for name, product in _products(adapter)
        if not math.isclose(product.scale, applied[name])
    ]
    if wrong:
        name, product = wrong[0]
        reason = (
            f"it would scale {len(wrong)} of {len(adapter.updates)} updates wrongly, such as "
            f"{name} by {applied[name]:.4g} instead of {product.scale:.4g}: it uses one "
            "`lora_alpha` for all, and ignores `alpha_pattern` and `use_rslora`"
        )
        return Serving("llama.cpp", (reason,), None, _with_one_rank(folder, base))
    gguf = f"{folder.resolve().name}.gguf"
    convert = ["python", "convert_lora_to_gguf.py", str(folder), "--outfile", gguf]
    # Without a folder, the script reads the base's configuration on the Hub.
    if base == _UNKNOWN_BASE or Path(base).is_dir():
        convert += ["--base", base]
    serve = ["llama-server", "-m", "BASE.gguf", "--lora", gguf]
    converted = "# BASE.gguf is the base model, as convert_hf_to_gguf.py writes it"
    note = None
    if ties is None:
        note = f"it fails on {_some(tied)} if the base ties its embeddings to its head"
    elif adapter.config.fan_in_fan_out:
        note = "adapters with `fan_in_fan_out`, as on GPT-2, were not tried"
    commands = "\n".join((shlex.join(convert), converted, shlex.join(serve)))
    return Serving("llama.cpp", (), note, commands)


def _ties_embeddings(base: str) -> bool | None:
    """Return whether a model has one weight for its embeddings and its head; None if unknown."""
    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except Exception:  # not on this machine, or a configuration that transformers cannot read
        return None
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", False))


def _more_than_products(adapter: LoraAdapter, whole: Sequence[str]) -> Iterator[str]:
    """Yield what servers do not apply, because it is no product of two matrices.

    Args:
        adapter: the adapter.
        whole: names of the weights that it replaces.
    """
    if vectors := [name for name, u in adapter.updates.items() if isinstance(u, Addition)]:
        yield f"the adapter changes biases ({_some(vectors)})"
    if whole:
        yield f"the adapter contains whole tensors ({_some(whole)})"


def _products(adapter: LoraAdapter) -> list[tuple[str, Product]]:
    return [(n, update) for n, update in adapter.updates.items() if isinstance(update, Product)]


def _whole(adapter: LoraAdapter) -> list[str]:
    """Return the weights that the adapter replaces.

    With an adapter on embeddings peft saves the base's embeddings too, which servers leave out.
    """
    replacements = adapter.replacements.items()
    return [name for name, key in replacements if not key.endswith(".base_layer.weight")]


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _with_one_rank(folder: Path, base: str, rank: int | None = None) -> str:
    """Return commands that write the adapter again, with one rank and one scale."""
    name = folder.resolve().name
    command = ["mergekit-spectral", "adapter", f"{name}-one-rank.yml", f"{name}-one-rank"]
    command += ["--rank", str(rank)] if rank else []
    recipe = {
        "merge_method": "knots_task_arithmetic",
        "base_model": base,
        "models": [{"model": f"{base}+{folder}"}],
    }
    return "\n".join((*_write(f"{name}-one-rank.yml", recipe), shlex.join(command)))


def _into_base(folder: Path, base: str) -> str:
    """Return commands that merge the adapter into its base."""
    name = folder.resolve().name
    command = ["mergekit-yaml", f"{name}-merged.yml", f"{name}-merged"]
    command += ["--lora-merge-cache", "merged-copies"]
    recipe = {"merge_method": "passthrough", "models": [{"model": f"{base}+{folder}"}]}
    return "\n".join((*_write(f"{name}-merged.yml", recipe), shlex.join(command)))


def _write(name: str, recipe: Mapping[str, object]) -> Iterator[str]:
    yield f"cat > {shlex.quote(name)} <<'EOF'"
    yield yaml.safe_dump(recipe, sort_keys=False, width=10**6).rstrip()
    yield "EOF"
