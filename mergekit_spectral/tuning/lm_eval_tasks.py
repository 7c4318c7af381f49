"""Tasks of lm-eval as data sets: their documents, prompts and metrics, scored in memory.

lm-eval makes the requests for each document, has the model answer them, and makes the metrics. Only
its loop over all documents is not used, for two reasons: that draws the few-shot examples of a
document depending on the documents before it, so a part of the documents would have other prompts
than all of them; and it collects information on the machine for each evaluation.
"""

from __future__ import annotations

import copy
import hashlib
import heapq
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from mergekit.common import ModelReference
from torch import nn
from transformers import PreTrainedTokenizerBase

from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.tuning.examples import split
from mergekit_spectral.tuning.scoring import BATCH_TOKENS, Score, vocabulary_size
from mergekit_spectral.tuning.sets import ScoredSet
from mergekit_spectral.tuning.task_names import NamedTask

PREFERRED = ("acc_norm", "acc", "exact_match", "f1")
"""Metrics, of which the first that a task has is the task's, unless another one is named."""

LOGIT_BYTES = 2**30
"""Bytes of the logits of one batch in float32. lm-eval computes those of whole prompts."""

MOST_ROWS = 64
"""Requests of one batch at most, as in lm-eval."""

GENERATED = 256
"""Tokens that lm-eval lets a model generate if the task says nothing else."""

SEED = 1234
"""Of lm-eval, for tasks whose answers are drawn at random."""

_SCORING = ("metric_list", "filter_list", "process_results", "repeats")
"""What of a task's configuration decides the score of a response."""


@dataclass(frozen=True)
class Document:
    """A document of a task.

    Attributes:
        task: the task.
        number: its place among the task's documents.
        content: as the task gives it.
        digest: SHA-256 of the content and the task's name, in hexadecimal.
    """

    task: Task
    number: int
    content: Any
    digest: str


@dataclass(frozen=True)
class TaskItem:
    """A document with the requests that a model answers.

    Attributes:
        document: the document.
        requests: of lm-eval, without responses.
        tokens: number of tokens of the longest request, with what may be generated.
        cut: whether that is more than the model reads.
        digest: SHA-256 of the requests and of how they are scored, in hexadecimal.
    """

    document: Document
    requests: tuple[Instance, ...]
    tokens: int
    cut: bool
    digest: str


@dataclass(frozen=True, kw_only=True)
class TaskSet(ScoredSet[TaskItem]):
    """A task, or the tasks of a group together.

    Attributes:
        tokenizer: the models'; one of its own, because lm-eval changes it.
        longest: number of tokens that a model reads.
    """

    tokenizer: PreTrainedTokenizerBase
    longest: int

    def score(self, model: nn.Module, items: Sequence[TaskItem]) -> list[Score]:
        metric, _, filter_name = self.metric.partition(",")
        answered = [
            [replace(request, resps=[], filtered_resps={}) for request in item.requests]
            for item in items
        ]
        with errors_of_task(f"task {self.name} cannot be scored"):
            self._answer(
                model,
                [request for each in answered for request in each],
                max(item.tokens for item in items),
            )
            by_task: dict[Task, list[Instance]] = defaultdict(list)
            for item, requests in zip(items, answered, strict=True):
                by_task[item.document.task] += requests
            for task, requests in by_task.items():
                _filter(task, filter_name).apply(requests)
            metrics = [
                item.document.task.process_results(
                    item.document.content,
                    [request.filtered_resps[filter_name] for request in requests],
                )
                for item, requests in zip(items, answered, strict=True)
            ]
        return [Score(self._number(each.get(metric)), None) for each in metrics]

    def _answer(self, model: nn.Module, requests: Sequence[Instance], tokens: int) -> None:
        """Have a model answer requests, of so many tokens at most, and add the responses."""
        by_kind: dict[str, list[Instance]] = defaultdict(list)
        for request in requests:
            by_kind[request.request_type] += [request] * (request.repeats or 1)
        device = next(model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(SEED)
            for kind, group in by_kind.items():
                answer = getattr(self._language_model(model, kind, tokens), kind)
                for request, response in zip(group, answer(group, disable_tqdm=True), strict=True):
                    request.resps.append(response)

    def _language_model(self, model: nn.Module, kind: str, tokens: int) -> HFLM:
        room = BATCH_TOKENS
        if kind != "generate_until":
            room = min(room, LOGIT_BYTES // (4 * vocabulary_size(model)))
        with _weights_stay(model):
            return HFLM(
                pretrained=model,
                tokenizer=self.tokenizer,
                backend="causal",
                max_length=self.longest,
                batch_size=max(1, min(MOST_ROWS, room // min(tokens, self.longest))),
            )

    def _number(self, value: Any) -> float:
        if isinstance(value, int | float | np.number | np.bool_) and math.isfinite(value):
            return float(value)
        raise MergeError(
            f"task {self.name}: {self.metric} of a document is {value!r}, and must be a finite "
            "number; name another metric in a file with `tasks:`."
        )


def find_tasks(folders: Sequence[Path]) -> TaskManager:
    """List the tasks of lm-eval, and those in folders.

    Raises:
        MergeError: there is no such folder.
    """
    for folder in folders:
        if not folder.is_dir():
            raise MergeError(
                f"{folder} is not a folder (working directory {Path.cwd()}); give one with the "
                "tasks' YAML files."
            )
    return TaskManager(include_path=list(folders))


def read_task_set(
    named: NamedTask,
    trained: ModelReference | None,
    known: TaskManager,
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    limit: int | None,
) -> TaskSet:
    """Read a task's documents, split them, and make the requests.

    Args:
        named: the task, or a group, whose tasks' documents become one set.
        trained: the input that was trained for it.
        known: from `find_tasks`.
        tokenizer: the models'.
        longest: number of tokens that a model reads.
        limit: number of documents at most, taken by their digests.

    Raises:
        MergeError: lm-eval has no such task or cannot load it, it has no such metric, or fewer than
            two different documents.
    """
    tasks = _load(named.name, known)
    metric = _metric(named, tasks)
    with errors_of_task(f"the documents of task {named.name} cannot be read"):
        documents = {each.digest: each for task in tasks for each in _documents(task)}
    if len(documents) < 2:
        raise MergeError(
            f"task {named.name} has {len(documents)} different documents, and two are needed: one "
            "to choose by, and one to report on."
        )
    kept = heapq.nsmallest(limit or len(documents), documents)
    choosing, reporting = split(documents[digest] for digest in kept)
    own_tokenizer = copy.deepcopy(tokenizer)
    with errors_of_task(f"the prompts of task {named.name} cannot be made"):
        items = [
            tuple(_item(document, metric, own_tokenizer, longest) for document in half)
            for half in (choosing, reporting)
        ]
    return TaskSet(
        named.name,
        trained,
        items[0],
        items[1],
        metric,
        named.weight,
        tokenizer=own_tokenizer,
        longest=longest,
    )


@contextmanager
def errors_of_task(what: str) -> Iterator[None]:
    """Turn any error within this context into a sentence, since tasks have code of their own."""
    try:
        yield
    except MergeError:
        raise
    except Exception as error:
        raise MergeError(f"{what} ({type(error).__name__}: {first_line(error)}).") from error


def _load(name: str, known: TaskManager) -> list[Task]:
    if name not in known.all_tasks:
        near = get_close_matches(name, known.all_tasks, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` lists them."
        raise MergeError(
            f"lm-eval has no task {name}; {hint} Your own tasks are files that end in .yaml, in a "
            "folder given with --task-search-path."
        )
    try:
        with errors_of_task(f"task {name} cannot be loaded"):
            tasks = list(known.load([name])["tasks"].values())
    except MergeError as error:
        if isinstance(error.__cause__, ConnectionError | FileNotFoundError):
            raise MergeError(
                f"the data set of task {name} cannot be loaded ({first_line(error.__cause__)}); "
                "load it once where the Hub can be reached, or give a task whose `data_files` are "
                "on this machine."
            ) from error.__cause__
        raise
    for task in tasks:
        for mark, reason in (
            ("UNSAFE_CODE", "runs code that models write"),
            ("MULTIMODAL", "has images or sounds"),
        ):
            if getattr(task, mark, False):
                raise MergeError(f"task {task.task_name} {reason}, so it cannot be tuned on.")
    return tasks


def _metric(named: NamedTask, tasks: Sequence[Task]) -> str:
    """Return the metric with its filter, the first that all tasks have."""
    possible = list(map(_metrics, tasks))
    wanted = [
        metric
        for metric in possible[0]
        if named.metric in (None, metric, metric.partition(",")[0])
        and all(metric in others for others in possible)
    ]
    if wanted:
        return wanted[0]
    has = "; ".join(dict.fromkeys(", ".join(each) or "none" for each in possible))
    raise MergeError(
        f"task {named.name} has no metric{f' {named.metric}' if named.metric else ''} that can be "
        "tuned: a mean over documents, of which more is better, in each of its tasks. It has "
        f"{has}. Perplexity of texts is measured with --text."
    )


def _metrics(task: Task) -> list[str]:
    """List the metrics that are means, and better if higher, each with each filter."""
    better = task.higher_is_better()
    means = [
        metric
        for metric, aggregate in task.aggregation().items()
        if aggregate in (mean, np.mean) and better.get(metric, True)
    ]
    means.sort(key=lambda metric: (*PREFERRED, metric).index(metric))
    return [f"{metric},{each.name}" for metric in means for each in _filters(task)]


def _filters(task: Task) -> list[Any]:
    # lm-eval has no public name for a task's filters.
    filters: list[Any] = task._filters
    return filters


def _filter(task: Task, name: str) -> Any:
    return next(each for each in _filters(task) if each.name == name)


def _documents(task: Task) -> Iterator[Document]:
    for number, content in task.doc_iterator():
        yield Document(task, number, content, _digest([task.task_name, content]))


def _item(
    document: Document, metric: str, tokenizer: PreTrainedTokenizerBase, longest: int
) -> TaskItem:
    task = document.task
    # So few-shot examples depend on the document alone.
    task.set_fewshot_seed(int(document.digest[:8], 16))
    context = task.fewshot_context(
        document.content,
        num_fewshot=task.config.num_fewshot or 0,
        gen_prefix=task.doc_to_prefix(document.content),
    )
    made = task.construct_requests(
        doc=document.content,
        ctx=context,
        metadata=(task.task_name, document.number, task.config.repeats),
    )
    requests = tuple(made if isinstance(made, list) else [made])
    tokens = _tokens(tokenizer, requests)
    config = task.dump_config()
    scoring = [config.get(key) for key in _SCORING]
    return TaskItem(
        document,
        requests,
        tokens,
        cut=tokens > longest,
        digest=_digest(
            [document.digest, metric, task.VERSION, scoring, [each.args for each in requests]]
        ),
    )


def _tokens(tokenizer: PreTrainedTokenizerBase, requests: Sequence[Instance]) -> int:
    """Return the number of tokens of the longest request, with what may be generated."""
    texts = ["".join(arg for arg in each.args if isinstance(arg, str)) for each in requests]
    generated = [
        each.args[1].get("max_gen_toks", GENERATED) if each.request_type == "generate_until" else 0
        for each in requests
    ]
    found = tokenizer(texts)["input_ids"]
    return max(len(own) + more for own, more in zip(found, generated, strict=True))


def _digest(content: Any) -> str:
    """Return the SHA-256 of what may have objects of any type in it, in hexadecimal."""
    text = json.dumps(content, sort_keys=True, default=_name)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _name(value: Any) -> str:
    # An object's own text may have its address in memory.
    return str(getattr(value, "__qualname__", None) or repr(value))


@contextmanager
def _weights_stay(model: nn.Module) -> Iterator[None]:
    """Keep lm-eval from tying weights, which are tied, and which peft may have wrapped."""
    model.tie_weights = lambda *_, **__: None  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.tie_weights
