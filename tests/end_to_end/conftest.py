"""Families of tiny checkpoints, written once a session and read by every test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from support import checkpoints
from support.checkpoints import Family
from support.one_thread import one_thread as one_thread

transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Three fine-tunes of a Llama in float32."""
    return checkpoints.write_family(tmp_path_factory.mktemp("llama"), checkpoints.llama())


@pytest.fixture(scope="session")
def gentle_llama(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Three fine-tunes of a Llama in float32, whose weights have changed by about 5%."""
    folder, base = tmp_path_factory.mktemp("gentle-llama"), checkpoints.llama()
    base.save_pretrained(folder / "base")
    tuned = tuple(folder / f"tuned-{seed}" for seed in (1, 2, 3))
    for seed, path in enumerate(tuned, start=1):
        checkpoints.fine_tuned(base, seed, size=0.001).save_pretrained(path)
    return Family(folder / "base", tuned)


@pytest.fixture(scope="session")
def llama_bfloat16(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Three fine-tunes of a Llama in bfloat16."""
    base = checkpoints.llama().to(torch.bfloat16)
    return checkpoints.write_family(tmp_path_factory.mktemp("llama-bfloat16"), base)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a test's merge goes."""
    return tmp_path / "out"
