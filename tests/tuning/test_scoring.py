"""Scores of a tiny model against plain forward passes of one row each."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from support import checkpoints
from support.checkpoints import LETTERS
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mergekit_spectral.errors import MergeError
from mergekit_spectral.tuning import scoring
from mergekit_spectral.tuning.examples import (
    Conversation,
    DataSet,
    Document,
    Example,
    Message,
    Question,
)
from mergekit_spectral.tuning.scoring import Item, prepare, score

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}a{% endif %}"
)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return checkpoints.llama().eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoints.write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def prepared(
    tokenizer: PreTrainedTokenizerBase, *examples: Example, longest: int = 64
) -> list[Item]:
    data = DataSet("data", Path("data.jsonl"), examples, len(examples))
    return prepare(data, data.examples, tokenizer, longest)


def letters(draw: random.Random, low: int, high: int) -> str:
    return "".join(draw.choices(LETTERS, k=draw.randint(low, high)))


def spelled(tokenizer: PreTrainedTokenizerBase, tokens: tuple[int, ...]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(list(tokens)))


@torch.no_grad()
def log_probabilities(model: PreTrainedModel, tokens: tuple[int, ...], start: int) -> torch.Tensor:
    """Return the log-probability of each token from `start` on, and of the likeliest one."""
    rows = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    own = torch.stack([rows[i - 1, tokens[i]] for i in range(start, len(tokens))])
    return torch.stack([own, rows[start - 1 : -1].max(-1).values])


def test_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
):
    draw = random.Random(0)
    questions = [Question(letters(draw, 1, 20), letters(draw, 1, 6)) for _ in range(30)]
    items = prepared(tokenizer, *questions)
    expected = []
    for question, item in zip(questions, items, strict=True):
        (row,) = item.rows
        assert spelled(tokenizer, row.tokens[row.start :]) == question.answer
        own, likeliest = log_probabilities(model, row.tokens, row.start)
        expected.append((float(own.mean()), bool((own == likeliest).all())))
    for tokens, logits in ((8192, 2**28), (64, 2**28), (8192, 4 * 29 * 40)):
        monkeypatch.setattr(scoring, "BATCH_TOKENS", tokens)
        monkeypatch.setattr(scoring, "LOGIT_BYTES", logits)
        scores = score(model, items)
        for one, (log_likelihood, exact) in zip(scores, expected, strict=True):
            assert math.log(one.value) == pytest.approx(log_likelihood, abs=1e-5)
            assert one.right == exact


def test_the_likeliest_answer_is_exact(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
    (item,) = prepared(tokenizer, Question("abc", "de"))
    (row,) = item.rows
    tokens = list(row.tokens[: row.start])
    for _ in range(3):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    greedy = Item("greedy", (scoring.Row(tuple(tokens), row.start),))
    other = Item("other", (scoring.Row((*tokens[:-1], (tokens[-1] + 1) % 29), row.start),))
    assert [one.right for one in score(model, [greedy, other])] == [True, False]


def test_choices(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
    choices = ("a", "bcd", "ee")
    (item,) = prepared(tokenizer, Question("xyz", "bcd", choices))
    totals = torch.stack([log_probabilities(model, r.tokens, r.start)[0].sum() for r in item.rows])
    (found,) = score(model, [item])
    assert found.value == pytest.approx(float(totals.softmax(0)[1]), abs=1e-5)
    assert found.right == (int(totals.argmax()) == 1)


def test_choices_of_one_token_are_read_once(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
):
    questions = [Question(prompt, "b", ("a", "b", "c", "dd")) for prompt in ("vw", "wv")]
    read: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda _, __, kwargs: read.extend(map(len, kwargs["input_ids"])), with_kwargs=True
    )
    try:
        found = score(model, prepared(tokenizer, *questions))
    finally:
        hook.remove()
    assert len(read) == 2 * 2  # the three choices of one token, and the other
    for item, one in zip(prepared(tokenizer, *questions), found, strict=True):
        totals = [log_probabilities(model, r.tokens, r.start)[0].sum() for r in item.rows]
        assert one.right == (int(torch.stack(totals).argmax()) == 1)


def test_text_is_scored_in_windows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
    text = letters(random.Random(1), 30, 30)
    items = prepared(tokenizer, Document(text), longest=8)
    tokens = tokenizer(text)["input_ids"]
    scored = [token for item in items for token in item.rows[0].tokens[1:]]
    assert scored == tokens[1:]  # every token once, but for the first
    assert len({item.digest for item in items}) == len(items) == 5
    for item, one in zip(items, score(model, items), strict=True):
        own, _ = log_probabilities(model, item.rows[0].tokens, 1)
        assert one.value == pytest.approx(float(own.mean()), abs=1e-5)
        assert one.right is None


def test_beginning_of_a_long_prompt_is_left_out(tokenizer: PreTrainedTokenizerBase):
    short, long = prepared(tokenizer, Question("abc", "de"), Question("abcdefgh", "yz"), longest=6)
    assert not short.cut
    assert long.cut
    (row,) = long.rows
    assert spelled(tokenizer, row.tokens) == "afghyz"
    assert spelled(tokenizer, row.tokens[row.start :]) == "yz"


def test_an_answer_longer_than_the_model_reads_is_cut(tokenizer: PreTrainedTokenizerBase):
    (item,) = prepared(tokenizer, Question("abc", "defghijk"), longest=4)
    (row,) = item.rows
    assert (len(row.tokens), row.start, item.cut) == (4, 1, True)


def test_conversations_use_the_chat_template(tokenizer: PreTrainedTokenizerBase):
    talk = Conversation((Message("system", "x"), Message("user", "y")), "zz")
    tokenizer.chat_template = TEMPLATE
    try:
        (item,) = prepared(tokenizer, talk)
    finally:
        tokenizer.chat_template = None
    (row,) = item.rows
    assert spelled(tokenizer, row.tokens) == "<s>sxuyazz"
    assert row.start == 6


def test_conversations_without_a_chat_template(tokenizer: PreTrainedTokenizerBase):
    with pytest.raises(MergeError) as caught:
        prepared(tokenizer, Conversation((Message("user", "y"),), "z"))
    assert "data.jsonl has conversations" in caught.value.message
    assert "has no chat template" in caught.value.message


def test_a_template_that_refuses(tokenizer: PreTrainedTokenizerBase):
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    try:
        with pytest.raises(MergeError, match="roles must alternate"):
            prepared(tokenizer, Conversation((Message("user", "y"),), "z"))
    finally:
        tokenizer.chat_template = None


def test_predictions_that_are_no_numbers(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
):
    broken = checkpoints.llama()
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    with pytest.raises(MergeError, match="are not numbers"):
        score(broken, prepared(tokenizer, Question("abc", "de")))
