"""The training loop: one model, one task, and the loss curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, get_cosine_schedule_with_warmup

from benchmarks.quality.scoring import Model, encode
from benchmarks.quality.tasks.task import END_OF_ANSWER, Example
from benchmarks.quality.training.batches import Batch, answer_logits
from benchmarks.quality.training.settings import Settings
from mergekit_spectral.tuning.scoring import Row

REPORTED_STEPS = 10
GRADIENT_NORM = 1.0

LossCurve = dict[int, float]


def train(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    settings: Settings,
    report: Callable[[int, float], None],
) -> LossCurve:
    """Train the parameters that require gradients, on the answers' tokens alone.

    Args:
        model: is changed in place.
        tokenizer: the model's.
        examples: the task's side to train on.
        settings: steps, batch size, learning rate, warm-up and seed.
        report: is called with step and loss as the curve grows.

    Returns:
        The mean loss of the latest `REPORTED_STEPS` steps, by the step at their end.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    # No weight decay: it moves every weight the same way in each task, and a merge adds that up.
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, settings.warmup_steps, settings.steps)
    batches = shuffled_batches(tokenizer, examples, settings.batch_size, settings.seed)
    curve: LossCurve = {}
    losses: list[float] = []
    model.train()
    for step in range(1, settings.steps + 1):
        batch = next(batches).to(model.device)
        loss = cross_entropy(answer_logits(model, batch), batch.wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % REPORTED_STEPS == 0 or step == settings.steps:
            curve[step] = fmean(losses)
            report(step, curve[step])
            losses = []
    model.eval()
    return curve


def shuffled_batches(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], size: int, seed: int
) -> Iterator[Batch]:
    """Yield full batches without end, each example at most once in every pass over them."""
    rows = [encode(tokenizer, each.prompt, each.answer + END_OF_ANSWER) for each in examples]
    loader: DataLoader[Row] = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=size,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=Batch.of,
    )
    while True:
        yield from loader
