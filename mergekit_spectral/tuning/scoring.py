"""How well a model predicts examples: one forward pass gives all signals.

An example is turned into rows of tokens: its prompt and its answer, or a row for each choice, or a
window of a text. Only the tokens of the answer, or all of a text's, are scored.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.tuning.examples import Conversation, DataSet, Document, Example, Question

LOGIT_BYTES = 256 * 2**20
"""Bytes of the logits of one batch in float32."""

BATCH_TOKENS = 8192
"""Tokens of one batch, padding included."""


@dataclass(frozen=True)
class Row:
    """Tokens of which the last ones are scored.

    Attributes:
        tokens: prompt and answer.
        start: index of the first scored token, at least 1.
    """

    tokens: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Item:
    """One example, ready to be scored.

    Attributes:
        digest: the example's.
        rows: one, or one for each choice.
        right: index of the row with the right answer.
        text: whether it is a window of a text, which has no answer.
        cut: whether tokens were left out, because the example is longer than the model reads.
    """

    digest: str
    rows: tuple[Row, ...]
    right: int = 0
    text: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Score:
    """A model's score on one example.

    Attributes:
        value: what is averaged over the examples of a set. Of an answer, its likelihood: the
            geometric mean of its tokens' probabilities. Of a choice, its share of the probability
            of all choices. Both are between 0 and 1, so that no example outweighs the others. Of a
            window of text, the mean log-probability of its tokens, in nats.
        right: whether the answer is right: the right choice is the likeliest, or greedy decoding
            begins with the answer. None if there is no answer.
    """

    value: float
    right: bool | None


def prepare(
    data: DataSet,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
) -> list[Item]:
    """Tokenize examples.

    Args:
        data: the set that they are from, for messages.
        examples: of that set.
        tokenizer: the model's. Conversations are rendered with its chat template.
        longest: number of tokens that the model reads. Of longer prompts, the beginning is left
            out; longer texts are cut into windows.

    Raises:
        MergeError: the tokenizer has no chat template or cannot render a conversation, or an
            answer has no tokens.
    """
    items: list[Item] = []
    for example in examples:
        if isinstance(example, Document):
            items += _windows(example, tokenizer, longest)
            continue
        assert isinstance(example, Question | Conversation)
        prompt, answers, right, whole = _texts(example, tokenizer, data)
        rows, cut = [], False
        for answer in answers:
            row = _row(tokenizer, prompt, answer, special=not whole)
            if row.start == len(row.tokens):
                raise MergeError(
                    f"{data.path}: the answer {answer!r} to {prompt[-60:]!r} has no tokens."
                )
            cut = cut or len(row.tokens) > longest
            rows.append(_shortened(row, longest))
        items.append(Item(example.digest, tuple(rows), right, cut=cut))
    return items


def _texts(
    example: Question | Conversation, tokenizer: PreTrainedTokenizerBase, data: DataSet
) -> tuple[str, Sequence[str], int, bool]:
    """Return the prompt, the answers, the right one's index, and whether a template was used."""
    if isinstance(example, Question):
        if not example.choices:
            return example.prompt, [example.answer], 0, False
        return example.prompt, example.choices, example.choices.index(example.answer), False
    messages = [{"role": turn.role, "content": turn.content} for turn in example.messages]
    if not tokenizer.chat_template:
        raise MergeError(
            f"{data.path} has conversations, and the base model's tokenizer has no chat template; "
            "add its `chat_template` to the tokenizer's files, or write the examples with `prompt` "
            "and `answer`."
        )
    try:
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template can raise anything
        raise MergeError(
            f"{data.path}: the base model's chat template refuses a conversation that begins with "
            f"{example.messages[0].content[:60]!r} ({first_line(error)})."
        ) from error
    return str(prompt), [example.answer], 0, True


def _row(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, special: bool) -> Row:
    """Tokenize a prompt and an answer together, as a model meets them in a text."""
    # A space belongs to the word after it.
    kept = prompt.rstrip(" ") if special else prompt
    answer = prompt[len(kept) :] + answer
    first = _tokens(tokenizer, kept, special)
    whole = _tokens(tokenizer, kept + answer, special)
    if whole[: len(first)] != first:  # a token would be part of both
        whole = first + _tokens(tokenizer, answer, False)
    if not first:  # the first token of a text cannot be predicted
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else whole[0]
        first, whole = [start], [start, *whole]
    return Row(tuple(whole), len(first))


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str, special: bool) -> list[int]:
    tokens: list[int] = tokenizer(text, add_special_tokens=special)["input_ids"]
    if (
        special
        and tokens
        and tokens[-1] == tokenizer.eos_token_id
        and not text.endswith(str(tokenizer.eos_token))
    ):
        return tokens[:-1]  # some tokenizers end every text
    return tokens


def _shortened(row: Row, longest: int) -> Row:
    extra = len(row.tokens) - longest
    if extra <= 0:
        return row
    # The first token, which may mark the beginning, stays; then the end of the prompt is kept.
    removed = min(extra, row.start - 1)
    tokens = (row.tokens[:1] + row.tokens[1 + removed :])[:longest]
    return Row(tokens, row.start - removed)


def _windows(
    document: Document, tokenizer: PreTrainedTokenizerBase, longest: int
) -> Iterator[Item]:
    tokens = _tokens(tokenizer, document.text, True)
    for number, begin in enumerate(range(0, max(1, len(tokens) - 1), longest - 1)):
        window = tuple(tokens[begin : begin + longest])
        if len(window) > 1:
            digest = hashlib.sha256(f"{document.digest} {number}".encode()).hexdigest()
            yield Item(digest, (Row(window, 1),), text=True)


@torch.inference_mode()
def score(model: torch.nn.Module, items: Sequence[Item]) -> list[Score]:
    """Score items, in batches of rows of similar length.

    Args:
        model: a causal language model of transformers.
        items: from `prepare`.

    Returns:
        The scores in the order of `items`.

    Raises:
        MergeError: the model's predictions are not finite.
    """
    rows = [(number, row) for number, item in enumerate(items) for row in item.rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][1].tokens))
    sums: list[float] = [0.0] * len(rows)
    exact: list[bool] = [False] * len(rows)
    for batch in _batches(order, [row for _, row in rows], vocabulary_size(model)):
        for i, (total, is_exact) in zip(
            batch, _score_rows(model, [rows[i][1] for i in batch]), strict=True
        ):
            sums[i], exact[i] = total, is_exact
    scores, place = [], 0
    for item in items:
        own = slice(place, place + len(item.rows))
        scores.append(_score_item(item, sums[own], exact[own]))
        place = own.stop
    return scores


def vocabulary_size(model: torch.nn.Module) -> int:
    """Return the number of logits at each position."""
    return int(model.get_output_embeddings().weight.shape[0])  # type: ignore[operator]


def _score_item(item: Item, sums: Sequence[float], exact: Sequence[bool]) -> Score:
    row = item.rows[item.right]
    mean = sums[item.right] / (len(row.tokens) - row.start)
    if item.text:
        return Score(mean, None)
    if len(item.rows) == 1:
        return Score(math.exp(mean), exact[0])
    totals = torch.tensor(sums, dtype=torch.float64)
    share = float(totals.softmax(0)[item.right])
    return Score(share, bool(totals.argmax() == item.right))


def _batches(order: Sequence[int], rows: Sequence[Row], vocabulary: int) -> Iterator[list[int]]:
    """Yield indices of rows, of ascending length, that fit into a batch."""
    batch: list[int] = []
    for i in order:
        width = len(rows[i].tokens)
        first = min(rows[j].start for j in (*batch, i))
        logits = (len(batch) + 1) * (width - first) * vocabulary * 4
        if batch and (logits > LOGIT_BYTES or (len(batch) + 1) * width > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _score_rows(model: torch.nn.Module, rows: Sequence[Row]) -> Iterator[tuple[float, bool]]:
    """Yield each row's log-likelihood, and whether all scored tokens are greedy."""
    width = max(len(row.tokens) for row in rows)
    first = min(row.start for row in rows)
    # Attention is causal, so padding on the right needs no mask.
    ids = torch.zeros(len(rows), width - 1, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row.tokens) - 1] = torch.tensor(row.tokens[:-1])
    # Choices of one token after the same prompt share a row, because the last token is not read.
    distinct, places = torch.unique(ids, dim=0, return_inverse=True)
    device = next(model.parameters()).device
    logits = _logits(model, distinct.to(device), width - first)
    for place, row in zip(places.tolist(), rows, strict=True):
        wanted = torch.tensor(row.tokens[row.start :], device=device)
        own = logits[place, row.start - first : len(row.tokens) - first].float()
        picked = own.gather(1, wanted[:, None])[:, 0]
        total = float((picked - own.logsumexp(1)).sum())
        if total != total:
            raise MergeError(
                "the model's predictions are not numbers; use a smaller `--lambda`, or `--dtype "
                "float32`."
            )
        yield total, bool((own.argmax(1) == wanted).all())


def _logits(model: torch.nn.Module, ids: Tensor, last: int) -> Tensor:
    """Return the logits at the last positions, [rows, last, vocabulary]."""
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    keep = {"logits_to_keep": last} if keeps else {}
    logits: Tensor = model(input_ids=ids, use_cache=False, **keep).logits
    return logits[:, -last:]
