"""One family of tiny models with tokenizers, and an adapter, read by every test."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import checkpoints
from support.checkpoints import Family
from support.one_thread import one_thread as one_thread
from support.planted_faults import Workshop


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Three fine-tunes of a Llama, with tokenizers."""
    family = checkpoints.write_family(tmp_path_factory.mktemp("family"), checkpoints.llama())
    for path in (family.base, *family.tuned):
        checkpoints.write_tokenizer(path)
    return family


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on the family's base."""
    folder = tmp_path_factory.mktemp("adapters") / "one"
    checkpoints.write_adapter(folder, checkpoints.llama(), 1, ["q_proj", "up_proj"])
    return folder


@pytest.fixture
def workshop(family: Family, adapter: Path, tmp_path: Path) -> Workshop:
    """The family, the adapter and an empty folder."""
    return Workshop(family, adapter, tmp_path)
