"""Accuracies against plain forward passes, and against transformers' own greedy generation."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from benchmarks.quality import scoring
from benchmarks.quality.scoring import (
    TaskScore,
    choice_accuracy,
    encode,
    exact_accuracy,
    score_tasks,
)
from benchmarks.quality.tasks.task import Example, KeyedExample, Task
from mergekit_spectral.tuning.scoring import Row

PROMPTS = [f"{first}{second} is" for first in "abcdef" for second in ("ghi", "g", "xy")]
# Of one token and of several.
CHOICES = ("q", "rs", "stu", "v")


def log_likelihood(model, tokenizer, prompt: str, answer: str) -> float:
    """The definition: one example, one token at a time."""
    text = tokenizer(prompt)["input_ids"]
    total = 0.0
    for token in tokenizer(answer)["input_ids"]:
        with torch.inference_mode():
            logits = model(torch.tensor([text])).logits[0, -1]
        total += logits.log_softmax(dim=-1)[token].item()
        text = [*text, token]
    return total


def generate(model, tokenizer, prompt: str, tokens: int) -> str:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = model.generate(ids, max_new_tokens=tokens, do_sample=False, eos_token_id=None)
    return tokenizer.decode(out[0, ids.shape[1] :])


def adapted(model):
    """Return a model with an adapter that changes what it says."""
    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, lora).eval()


@pytest.mark.parametrize("has_adapter", [False, True])
def test_exact_accuracy_agrees_with_generation(
    model, tokenizer, monkeypatch: pytest.MonkeyPatch, has_adapter: bool
):
    model = adapted(model) if has_adapter else model
    # Answers of several lengths, so that batches are padded.
    said = [generate(model, tokenizer, prompt, 2 + i % 6) for i, prompt in enumerate(PROMPTS)]
    right = [Example(p, text[:-1]) for p, text in zip(PROMPTS, said, strict=True)]
    wrong = [replace(e, answer="~" + e.answer[1:]) for e in right if e.answer[0] != "~"]
    ends = {text[-1] for text in said}
    for end in ends:
        monkeypatch.setattr(scoring, "END_OF_ANSWER", end)
        expected = sum(text.endswith(end) for text in said) / (len(right) + len(wrong))
        assert 0 < exact_accuracy(model, tokenizer, right + wrong) == expected
    assert len(ends) > 1


def test_prompt_and_answer_are_tokenized_separately(tokenizer):
    tokens = tokenizer("abcd.")["input_ids"]
    assert encode(tokenizer, "ab", "cd.") == Row(tuple(tokens), 2)


@pytest.mark.parametrize("choices", [CHOICES, ("q", "v", "z")])
def test_choice_accuracy(model, tokenizer, choices):
    examples = [Example(p, choices[i % len(choices)]) for i, p in enumerate(PROMPTS)]
    likeliest = [
        max(choices, key=lambda choice: log_likelihood(model, tokenizer, e.prompt, choice))
        for e in examples
    ]
    right = sum(e.answer == choice for e, choice in zip(examples, likeliest, strict=True))
    assert 0 < right < len(examples)
    assert choice_accuracy(model, tokenizer, examples, choices) == right / len(examples)


def test_scores_of_several_tasks(model, tokenizer):
    def generate():
        for number in range(200):
            yield KeyedExample(f"{number} is", "qv"[number % 2], str(number))

    free = Task("free", "", generate, held_out_share=0.5)
    choice = Task("choice", "", generate, choices=("q", "v"), held_out_share=0.5)
    first, second = score_tasks(model, tokenizer, [free, choice], "train")
    examples = free.between(0.58, 1)
    exact = exact_accuracy(model, tokenizer, examples)
    likeliest = choice_accuracy(model, tokenizer, examples, choice.choices)
    assert first == TaskScore("free", "train", len(examples), exact, None)
    assert second == TaskScore("choice", "train", len(examples), exact, likeliest)
    assert (first.accuracy, second.accuracy) == (exact, likeliest)
