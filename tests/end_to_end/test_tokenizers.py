"""Models whose vocabularies differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from support import checkpoints
from support.checkpoints import VOCABULARY, Family
from support.command import mergekit_yaml
from support.expected import VOCABULARY as HAS_VOCABULARY_AXIS
from support.expected import Weights, assert_weights_merged
from support.recipe_builders import METHODS, recipe

CHAT = ("<|im_start|>", "<|im_end|>")
PAD = ("<pad>",)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A base and two models fine-tuned from it: one has tokens for chat, one for padding."""
    folder = tmp_path_factory.mktemp("vocabularies")
    base = checkpoints.llama()
    base.save_pretrained(folder / "base")
    checkpoints.write_tokenizer(folder / "base")
    for seed, (name, added) in enumerate({"chat": CHAT, "padded": PAD}.items(), start=1):
        checkpoints.write_enlarged(folder / name, checkpoints.fine_tuned(base, seed), *added)
    return Family(folder / "base", (folder / "chat", folder / "padded"))


@pytest.mark.parametrize("method", METHODS)
def test_union_keeps_everyones_tokens(method: str, family: Family, out: Path):
    mergekit_yaml({**recipe(method, family), "tokenizer_source": "union"}, out)

    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert set(tokenizer.get_vocab()) == {*VOCABULARY, *CHAT, *PAD}
    new = {token: tokenizer.get_vocab()[token] for token in (*CHAT, *PAD)}
    base, chat, padded = (checkpoints.tensors(path) for path in (family.base, *family.tuned))
    donors = {**dict.fromkeys(CHAT, (chat, CHAT)), **dict.fromkeys(PAD, (padded, PAD))}
    rows = {
        index: (weights, len(VOCABULARY) + added.index(token))
        for token, index in new.items()
        for weights, added in [donors[token]]
    }
    base, chat, padded = (_with_rows(weights, rows) for weights in (base, chat, padded))
    assert_weights_merged(checkpoints.tensors(out), base, [chat, padded], method)


@pytest.mark.parametrize("method", METHODS)
def test_base_drops_the_new_tokens(method: str, family: Family, out: Path):
    mergekit_yaml({**recipe(method, family), "tokenizer_source": "base"}, out)
    base, *tuned = (
        _with_rows(checkpoints.tensors(path), {}) for path in (family.base, *family.tuned)
    )
    assert_weights_merged(checkpoints.tensors(out), base, tuned, method)


def _with_rows(weights: Weights, rows: dict[int, tuple[Weights, int]]) -> Weights:
    """Give the model the base's tokens and then rows of other models, as mergekit does."""
    aligned = dict(weights)
    for name in filter(HAS_VOCABULARY_AXIS.search, weights):
        added = [rows[index][0][name][rows[index][1]] for index in sorted(rows)]
        aligned[name] = torch.stack([*weights[name][: len(VOCABULARY)], *added])
    return aligned
