"""Tasks of lm-eval on local files, for models with the vocabulary of `checkpoints`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PROMPT = {"doc_to_text": "{{prompt}}", "target_delimiter": ""}
CHOICES = {
    **PROMPT,
    "output_type": "multiple_choice",
    "doc_to_choice": "{{[answer, 'qx', 'zzz']}}",
    "doc_to_target": 0,
    "metric_list": [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm")
    ],
}
GENERATED = {
    **PROMPT,
    "output_type": "generate_until",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 2, "do_sample": False},
    "filter_list": [
        {"name": "whole", "filter": [{"function": "take_first"}]},
        {
            "name": "first",
            "filter": [
                {"function": "regex", "regex_pattern": "([a-z])"},
                {"function": "take_first"},
            ],
        },
    ],
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            "regexes_to_ignore": [" "],  # the tokenizer puts them between letters
        }
    ],
}
ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{prompt}}",
    "metric_list": [
        {"metric": "word_perplexity", "aggregation": "weighted_perplexity"},
    ],
}


def write_task(folder: Path, name: str, data: Path, **config: Any) -> Path:
    """Write a task's YAML file.

    Args:
        folder: for the file.
        name: of the task.
        data: a ``.jsonl`` file with ``prompt`` and ``answer``, as of `write_answers`.
        config: further keys, as `CHOICES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    own = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(folder / ".cache"),
        },
        "test_split": "test",
        **config,
    }
    path.write_text(yaml.safe_dump(own, sort_keys=False))
    return path
