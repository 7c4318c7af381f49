"""Scoring against the real thing: transformers' own greedy generation."""

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mergekit_spectral.demo.scoring import (
    END_OF_ANSWER,
    IGNORED,
    Example,
    answer_logits,
    encode,
    exact_match,
)

LETTERS = sorted(set("abcdefgh ."))


@pytest.fixture(scope="module")
def tokenizer():
    """One token a character."""
    model = models.BPE(vocab={letter: i for i, letter in enumerate(LETTERS)}, merges=[])
    raw = Tokenizer(model)
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(LETTERS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=None,
        bos_token_id=None,
    )
    # A large initialization: small ones make the model repeat one token.
    config.initializer_range = 1.0
    return LlamaForCausalLM(config).eval()


def generate(model, tokenizer, prompt: str, tokens: int) -> str:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = model.generate(ids, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(out[0, ids.shape[1] :])


def test_agrees_with_generation(model, tokenizer):
    prompts = ["".join(LETTERS[2 + (i // 8**k) % 8] for k in range(3)) for i in range(32)]
    # Answers of several lengths, so that batches are padded.
    answers = [generate(model, tokenizer, p, 1 + i % 6)[:-1] for i, p in enumerate(prompts)]
    examples = [Example(p, a) for p, a in zip(prompts, answers, strict=True)]
    said = [
        generate(model, tokenizer, e.prompt, len(e.answer) + 1) == e.answer + END_OF_ANSWER
        for e in examples
    ]
    assert 0 < sum(said) < len(said)
    assert exact_match(model, tokenizer, examples, batch_size=7) == sum(said) / len(said)


def test_one_wrong_token_is_wrong(model, tokenizer):
    for i in range(100):
        prompt = "".join(LETTERS[2 + (i // 8**k) % 8] for k in range(3))
        text = generate(model, tokenizer, prompt, 8)
        if END_OF_ANSWER in text[2:]:
            break
    answer = text[: text.index(END_OF_ANSWER, 2)]
    right = Example(prompt, answer)
    wrong = replace(right, answer=("a" if answer[0] != "a" else "b") + answer[1:])
    assert exact_match(model, tokenizer, [right]) == 1
    assert exact_match(model, tokenizer, [wrong]) == 0
    assert exact_match(model, tokenizer, [right, wrong]) == 0.5


def test_encode_labels_only_the_answer(tokenizer):
    batch = encode(tokenizer, [Example("ab", "cde"), Example("a", "b")])
    assert batch.input_ids.shape == batch.labels.shape == (2, 5)
    assert tokenizer.decode(batch.input_ids[0]) == "abcde"
    assert batch.labels[0].tolist() == [IGNORED, *tokenizer("cde.")["input_ids"]]
    assert tokenizer.decode(batch.input_ids[1, :2]) == "ab"
    assert batch.labels[1].tolist() == [*tokenizer("b.")["input_ids"], *[IGNORED] * 3]


def test_logits_at_the_answers_are_the_models(model, tokenizer):
    examples = [Example("abc", "de"), Example("a", "bcdef"), Example("abc", "dh")]
    batch = encode(tokenizer, examples)
    everywhere = model(input_ids=batch.input_ids).logits
    expected = [
        everywhere[i, len(e.prompt) - 1 + k]
        for i, e in enumerate(examples)
        for k in range(len(e.answer) + 1)
    ]
    torch.testing.assert_close(answer_logits(model, batch), torch.stack(expected))
    assert tokenizer.decode(batch.wanted) == "de.bcdef.dh."


def test_an_adapter_changes_the_logits(model, tokenizer):
    batch = encode(tokenizer, [Example("abc", "de")])
    plain = answer_logits(model, batch)
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(model), lora).eval()
    everywhere = adapted(input_ids=batch.input_ids).logits
    torch.testing.assert_close(answer_logits(adapted, batch), everywhere[0, 2:])
    assert not torch.allclose(answer_logits(adapted, batch), plain)
