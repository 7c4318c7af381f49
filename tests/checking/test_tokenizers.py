"""Faults of tokenizers that mergekit is to put together."""

from __future__ import annotations

import pytest
from support.planted_faults import Fault, Workshop, assert_found

FAULTS: dict[str, Fault] = {
    "a chat template": (
        lambda w: {**w.recipe(), "tokenizer_source": "base", "chat_template": "chatmll"},
        "error",
        "`chat_template` must be auto, alpaca, chatml, ",
        "chat_template",
    ),
    "a chat template without a tokenizer": (
        lambda w: {**w.recipe(), "chat_template": "chatmll"},
        "warning",
        "`chat_template` must be auto, alpaca, chatml, ",
        "chat_template",
    ),
    "a token that its model does not have": (
        lambda w: w.with_token("<new>", str(w.family.base)),
        "error",
        "whose tokenizer has no '<new>'",
        "tokenizer.tokens.<new>",
    ),
    "a tokenizer that is not there": (
        lambda w: {**w.recipe(), "tokenizer_source": "./nowhere"},
        "error",
        "Model ./nowhere not found",
        "tokenizer_source",
    ),
    "a model without the tokenizer that is asked of it": (
        lambda w: {**w.recipe(), "tokenizer": {"source": str(w.without_tokenizer())}},
        "error",
        "has no tokenizer, but the recipe takes the merged model's tokenizer from it",
        "tokenizer.source",
    ),
    "a base without a tokenizer": (
        lambda w: {
            **w.recipe(),
            "base_model": str(w.without_tokenizer()),
            "tokenizer": {"source": "union"},
        },
        "error",
        "put together from the base model's, but ",
        "base_model",
    ),
    "a token of a model that is not merged": (
        lambda w: w.with_token("<s>", str(w.copied(w.family.base))),
        "error",
        "the token '<s>' is taken from ",
        "tokenizer.tokens.<s>",
    ),
    "the number of a token": (
        lambda w: w.with_token(
            "<s>", {"kind": "model_token", "model": str(w.family.base), "token_id": 99}
        ),
        "error",
        "the token '<s>' is taken from token number 99 of ",
        "tokenizer.tokens.<s>",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)
