import pytest
import torch

from benchmarks.quality.scoring import (
    TaskScore,
    answer_log_likelihoods,
    choice_accuracy,
    score_tasks,
)
from benchmarks.quality.tasks.task import KeyedExample, Task
from mergekit_spectral.demo.scoring import Example, encode, exact_match

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


def test_log_likelihoods_are_those_of_each_alone(model, tokenizer):
    examples = [Example(prompt, choice) for prompt in PROMPTS[:4] for choice in CHOICES]
    expected = [log_likelihood(model, tokenizer, e.prompt, e.answer) for e in examples]
    with torch.inference_mode():
        actual = answer_log_likelihoods(model, encode(tokenizer, examples, end=""))
    torch.testing.assert_close(actual, torch.tensor(expected))


@pytest.mark.parametrize("choices", [CHOICES, ("q", "v", "z")])
def test_choice_accuracy(model, tokenizer, choices):
    examples = [Example(p, choices[i % len(choices)]) for i, p in enumerate(PROMPTS)]
    likeliest = [
        max(choices, key=lambda choice: log_likelihood(model, tokenizer, e.prompt, choice))
        for e in examples
    ]
    right = sum(e.answer == choice for e, choice in zip(examples, likeliest, strict=True))
    assert 0 < right < len(examples)
    actual = choice_accuracy(model, tokenizer, examples, choices, batch_size=7)
    assert actual == right / len(examples)


def test_scores_of_several_tasks(model, tokenizer):
    def generate():
        for number in range(200):
            yield KeyedExample(f"{number} is", "qv"[number % 2], str(number))

    free = Task("free", "", generate, held_out_share=0.5)
    choice = Task("choice", "", generate, choices=("q", "v"), held_out_share=0.5)
    first, second = score_tasks(model, tokenizer, [free, choice], "train")
    examples = free.between(0.58, 1)
    exact = exact_match(model, tokenizer, examples)
    likeliest = choice_accuracy(model, tokenizer, examples, choice.choices)
    assert first == TaskScore("free", "train", len(examples), exact, None)
    assert second == TaskScore("choice", "train", len(examples), exact, likeliest)
    assert (first.accuracy, second.accuracy) == (exact, likeliest)
