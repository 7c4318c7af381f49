"""A model of a few thousand weights that reads one character a token."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from support.demo_recipes import run_recipes_in_forks
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.quality.__main__ import main


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {character: i for i, character in enumerate(string.printable)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw)


@pytest.fixture(scope="session")
def new_model() -> Callable[[], LlamaForCausalLM]:
    config = LlamaConfig(
        vocab_size=len(string.printable),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
        # Else small models give all tokens nearly the same probability.
        initializer_range=0.5,
    )

    def make() -> LlamaForCausalLM:
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()

    return make


@pytest.fixture
def model(new_model: Callable[[], LlamaForCausalLM]) -> LlamaForCausalLM:
    return new_model()


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: PreTrainedTokenizerFast,
    new_model: Callable[[], LlamaForCausalLM],
) -> Callable[..., Path]:
    """Make folders with a tiny base and fine-tunes of some tasks, of both kinds or of one."""

    def make(*tasks: str, kind: str = "both") -> Path:
        folder = tmp_path_factory.mktemp("quality")
        new_model().save_pretrained(folder / "base")
        tokenizer.save_pretrained(folder / "base")
        options = [option for task in tasks for option in ("--task", task)]
        command = ["train", "--cache", str(folder), "--steps", "3", "--kind", kind, *options]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        return folder

    return make


@pytest.fixture
def forked_mergekit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process run mergekit-yaml in forks that need not import PyTorch anew."""
    run_recipes_in_forks(monkeypatch)
