import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from benchmarks.quality.scoring import encode
from benchmarks.quality.training.batches import IGNORED, Batch, answer_logits


@pytest.fixture
def batch(tokenizer) -> Batch:
    pairs = (("abc", "de."), ("a", "bcdef."), ("abc", "dh."))
    return Batch.of([encode(tokenizer, *pair) for pair in pairs])


def test_labels_are_the_answers_tokens(tokenizer):
    batch = Batch.of([encode(tokenizer, "ab", "cde."), encode(tokenizer, "a", "b.")])
    assert batch.input_ids.shape == batch.labels.shape == (2, 5)
    assert tokenizer.decode(batch.input_ids[0]) == "abcde"
    assert batch.labels[0].tolist() == [IGNORED, *tokenizer("cde.")["input_ids"]]
    assert tokenizer.decode(batch.input_ids[1, :2]) == "ab"
    assert batch.labels[1].tolist() == [*tokenizer("b.")["input_ids"], *[IGNORED] * 3]


def test_logits_at_the_answers_are_the_models(model, tokenizer, batch):
    everywhere = model(input_ids=batch.input_ids).logits
    expected = torch.cat([everywhere[0, 2:5], everywhere[1, :6], everywhere[2, 2:5]])
    torch.testing.assert_close(answer_logits(model, batch), expected)
    assert tokenizer.decode(batch.wanted) == "de.bcdef.dh."


def test_an_adapter_changes_the_logits(model, batch):
    plain = answer_logits(model, batch)
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(copy.deepcopy(model), lora).eval()
    everywhere = adapted(input_ids=batch.input_ids).logits
    torch.testing.assert_close(answer_logits(adapted, batch)[:3], everywhere[0, 2:5])
    assert not torch.allclose(answer_logits(adapted, batch), plain)
