"""Read the tensors in an adapter's file, in both formats."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mergekit_spectral.adapters.adapter_tensors import AdapterTensors
from mergekit_spectral.errors import MergeError

TENSORS = {
    "matrix": torch.arange(12.0).view(3, 4).to(torch.bfloat16),
    "vector": torch.arange(5.0),
    "scalar": torch.tensor(2.0, dtype=torch.float64),
    "empty": torch.zeros(0, 4),
}


@pytest.fixture(params=["adapter_model.safetensors", "adapter_model.bin"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path: Path = tmp_path / request.param
    write(path, TENSORS)
    return path


def write(path: Path, content: Any) -> None:
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)


def test_shapes_and_values(path: Path):
    tensors = AdapterTensors(path)
    assert tensors.shapes == {key: tuple(tensor.shape) for key, tensor in TENSORS.items()}
    for key, tensor in TENSORS.items():
        assert tensors.read(key).dtype == tensor.dtype
        assert torch.equal(tensors.read(key, torch.device("cpu")), tensor)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_truncated_file(path: Path, share: float):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path, "truncated or damaged")


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", b"\0" * 99],
    ids=["page", "pointer", "zeros"],
)
def test_file_of_another_format(path: Path, content: bytes):
    path.write_bytes(content)
    assert_refused(path, "truncated or damaged")


def test_folder_in_place_of_the_file(path: Path):
    path.unlink()
    path.mkdir()
    assert_refused(path, "cannot be read")


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, {"path": Path("x")}, {"run": print}])
def test_pickle_with_other_objects_than_tensors(content: Any, tmp_path: Path):
    path = tmp_path / "adapter_model.bin"
    write(path, content)
    assert_refused(path, "save it as adapter_model.safetensors")


@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_wrong_byte_raises_no_error_but_merge_error(place: int, value: int, tmp_path_factory: Any):
    folder = tmp_path_factory.mktemp("bytes")
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        path = folder / name
        write(path, TENSORS)
        content = bytearray(path.read_bytes())
        content[place % len(content)] = value
        path.write_bytes(content)
        with contextlib.suppress(MergeError):
            AdapterTensors(path)


def assert_refused(path: Path, advice: str) -> None:
    """Check that the file is refused with one line that names it and contains `advice`."""
    with pytest.raises(MergeError) as refused:
        AdapterTensors(path)
    assert str(refused.value).startswith(f"Adapter file {path} ")
    assert advice in str(refused.value)
    assert "\n" not in str(refused.value)
