"""Tasks of lm-eval as data sets, against lm-eval's own evaluation of the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pytest
import yaml
from datasets import config as datasets_config
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from peft import LoraConfig, get_peft_model
from support import checkpoints
from support.answers import write_answers
from support.lm_eval_tasks import CHOICES, GENERATED, ROLLING, write_task
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mergekit_spectral.errors import MergeError
from mergekit_spectral.tuning import lm_eval_tasks
from mergekit_spectral.tuning.lm_eval_tasks import TaskSet, read_task_set
from mergekit_spectral.tuning.task_names import NamedTask

FEWSHOT = {**CHOICES, "num_fewshot": 2, "fewshot_split": "test"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks, and the examples that they are about."""
    folder = tmp_path_factory.mktemp("tasks")
    own, other = (
        write_answers(folder / f"{name}.jsonl", checkpoints.llama().eval())
        for name in ("own", "other")
    )
    records = list(map(json.loads, own.read_text().splitlines()))
    for record in records[::2]:
        record["answer"] = "jq"  # not what the model says
    own.write_text("\n".join(map(json.dumps, records)))
    write_task(folder, "choices", own, **CHOICES, tag="both")
    write_task(folder, "generated", own, **GENERATED, tag="both")
    write_task(folder, "others", other, **CHOICES)
    write_task(folder, "fewshot", own, **FEWSHOT)
    write_task(folder, "rolling", own, **ROLLING)
    lower = {**CHOICES["metric_list"][0], "higher_is_better": False}
    write_task(folder, "lower", own, **{**CHOICES, "metric_list": [lower]})
    write_task(folder, "code", own, **CHOICES, unsafe_code=True)
    write_task(folder, "broken", own, **{**CHOICES, "doc_to_choice": "{{nothing}}"})
    write_task(folder, "missing", folder / "nowhere.jsonl", **CHOICES)
    write_task(folder, "remote", own, **{**CHOICES, "dataset_path": "org/not-there"})
    for name, members in (("all", ["choices", "others"]), ("mixed", ["choices", "generated"])):
        group = {"group": name, "task": members}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(group))
    return folder


@pytest.fixture(scope="module")
def known(folder: Path) -> TaskManager:
    return TaskManager(include_path=[folder], include_defaults=False)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    checkpoints.write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def model() -> PreTrainedModel:
    return checkpoints.llama().eval()


@pytest.fixture
def read(known: TaskManager, tokenizer: PreTrainedTokenizerBase) -> Any:
    def read(name: str, *, limit: int | None = None, longest: int = 64, **named: Any) -> TaskSet:
        return read_task_set(NamedTask(name, **named), None, known, tokenizer, longest, limit)

    return read


def scores(model: PreTrainedModel, data: TaskSet) -> dict[str, float]:
    items = (*data.choosing, *data.reporting)
    return {
        item.document.content["prompt"]: score.value
        for item, score in zip(items, data.score(model, items), strict=True)
    }


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("choices", "acc_norm,none"),
        ("choices", "acc,none"),
        ("generated", "exact_match,whole"),
        ("generated", "exact_match,first"),
    ],
)
def test_scores_are_those_of_lm_eval(
    name: str,
    metric: str,
    read: Any,
    known: TaskManager,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
):
    ours = scores(model, read(name, metric=metric))
    lm = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=8)
    theirs = lm_eval.evaluate(lm, known.load([name]), bootstrap_iters=0)
    assert np.mean(list(ours.values())) == pytest.approx(theirs["results"][name][metric])
    part, _, filter_name = metric.partition(",")
    by_document = {
        sample["doc"]["prompt"]: sample[part]
        for sample in theirs["samples"][name]
        if sample["filter"] == filter_name
    }
    assert ours == by_document
    assert metric.endswith("first") or len(set(ours.values())) == 2


def test_a_part_of_the_documents_is_scored_as_all_are(read: Any, model: PreTrainedModel):
    data = read("fewshot")
    whole = data.score(model, data.choosing)
    assert data.score(model, data.choosing[2:4]) == whole[2:4]


def test_halves_and_samples_depend_on_the_content(read: Any, folder: Path, tmp_path: Path):
    data = read("choices")
    assert (len(data.choosing), len(data.reporting)) == (6, 6)
    lines = (folder / "own.jsonl").read_text().splitlines()
    again = tmp_path / "again.jsonl"
    again.write_text("\n".join(reversed(lines + lines[:3])))  # in another order, some twice
    write_task(tmp_path, "choices", again, **CHOICES)
    manager = TaskManager(include_path=[tmp_path], include_defaults=False)
    other = read_task_set(NamedTask("choices"), None, manager, data.tokenizer, 64, None)
    assert digests(other.choosing) == digests(data.choosing)
    assert digests(other.reporting) == digests(data.reporting)
    few, more = (read("choices", limit=limit) for limit in (4, 9))
    assert (len(more.choosing), len(more.reporting)) == (5, 4)
    assert set(digests((*few.choosing, *few.reporting))) < set(
        digests((*more.choosing, *more.reporting))
    )


def digests(items: tuple[Any, ...]) -> list[str]:
    return [item.digest for item in items]


def test_few_shot_examples_depend_on_the_document_alone(read: Any):
    prompts = {
        item.digest: item.requests[0].args
        for limit in (None, 5)
        for item in read("fewshot", limit=limit).choosing
    }
    whole = read("fewshot")
    for item in (*whole.choosing, *whole.reporting):
        assert prompts.get(item.digest, item.requests[0].args) == item.requests[0].args
        context = item.requests[0].args[0]
        assert len(context.split("\n\n")) == 3  # two examples and the document
    contexts = {item.requests[0].args[0].rpartition("\n\n")[0] for item in whole.choosing}
    assert len(contexts) > 1


def test_what_decides_a_score_is_in_the_digest(read: Any):
    sets = [
        read("choices"),
        read("choices", metric="acc"),
        read("generated"),
        read("generated", metric="exact_match,first"),
    ]
    assert len({data.choosing[0].digest for data in sets}) == 4


def test_a_group_and_a_tag_are_one_set(read: Any, model: PreTrainedModel):
    data = read("all")
    items = (*data.choosing, *data.reporting)
    assert data.name == "all"
    assert {item.document.task.task_name for item in items} == {"choices", "others"}
    assert len(items) == 24
    values = [each.value for each in data.score(model, items)]
    alone = {**scores(model, read("choices")), **scores(model, read("others"))}
    assert values == [alone[item.document.content["prompt"]] for item in items]
    assert len(read("all", limit=10).choosing) == 5


@pytest.mark.parametrize(
    ("name", "metric", "chosen"),
    [
        ("choices", None, "acc_norm,none"),
        ("choices", "acc", "acc,none"),
        ("generated", None, "exact_match,whole"),
        ("generated", "exact_match,first", "exact_match,first"),
    ],
)
def test_metric(name: str, metric: str | None, chosen: str, read: Any):
    assert read(name, metric=metric).metric == chosen


@pytest.mark.parametrize(
    ("name", "metric", "message"),
    [
        ("rolling", None, "It has none. Perplexity of texts is measured with --text"),
        ("choices", "f1", "has no metric f1 that can be tuned"),
        ("generated", "acc,none", "It has exact_match,whole, exact_match,first."),
        ("mixed", None, "It has acc_norm,none, acc,none; exact_match,whole"),
        ("both", None, "in each of its tasks"),
        ("lower", None, "of which more is better"),
        ("code", None, "task code runs code that models write"),
        ("broken", None, "task broken cannot be loaded (UndefinedError: 'nothing' is undefined)"),
        ("missing", None, "the data set of task missing cannot be loaded (Unable to find"),
        ("choicse", None, "lm-eval has no task choicse; did you mean choices?"),
        ("winogrande", None, "`lm-eval ls tasks` lists them"),
    ],
)
def test_tasks_that_cannot_be_tuned(name: str, metric: str | None, message: str, read: Any):
    with pytest.raises(MergeError) as caught:
        read(name, metric=metric)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_a_data_set_that_cannot_be_downloaded(read: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets_config, "HF_HUB_OFFLINE", True)
    with pytest.raises(MergeError) as caught:
        read("remote")
    assert "the data set of task remote cannot be loaded" in caught.value.message
    assert "org/not-there" in caught.value.message


def test_one_document_is_too_few(folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase):
    data = tmp_path / "one.jsonl"
    data.write_text((folder / "own.jsonl").read_text().splitlines()[0])
    write_task(tmp_path, "one", data, **CHOICES)
    manager = TaskManager(include_path=[tmp_path], include_defaults=False)
    with pytest.raises(MergeError, match="task one has 1 different documents, and two are needed"):
        read_task_set(NamedTask("one"), None, manager, tokenizer, 64, None)


def test_long_documents_are_counted(read: Any):
    lengths = [item.tokens for item in read("choices").choosing]
    cut = [item.cut for item in read("choices", longest=max(lengths) - 1).choosing]
    assert cut == [length == max(lengths) for length in lengths]


def test_room_for_what_is_generated(read: Any, model: PreTrainedModel):
    data = read("generated", longest=2)
    with pytest.raises(MergeError, match=r"task generated cannot be scored .*tokens to generate"):
        data.score(model, data.choosing)


def test_values_that_are_no_numbers(read: Any, model: PreTrainedModel):
    data = read("choices")
    task = data.choosing[0].document.task
    task.process_results = lambda *_: {"acc_norm": (1, 2)}
    with pytest.raises(MergeError, match=r"acc_norm,none of a document is \(1, 2\)"):
        data.score(model, data.choosing)


@pytest.mark.parametrize("batch_tokens", [1, 40])
def test_batches(
    batch_tokens: int, read: Any, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
):
    data = read("choices")
    expected = scores(model, data)
    monkeypatch.setattr(lm_eval_tasks, "BATCH_TOKENS", batch_tokens)
    assert scores(model, data) == expected


@pytest.mark.parametrize("targets", [["q_proj"], ["lm_head", "embed_tokens"]])
@pytest.mark.parametrize("tied", [False, True])
def test_the_model_stays_as_it_is(targets: list[str], tied: bool, read: Any):
    base = checkpoints.llama(tie_word_embeddings=tied)
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    get_peft_model(base, config)
    base.eval()
    before = dict(base.named_parameters())
    data = read("choices")
    first = data.score(base, data.choosing)
    after = dict(base.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    assert "tie_weights" not in vars(base)
    assert data.score(base, data.choosing) == first
