"""Precision of matrix products, whatever the process has set."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import relative_error
from support.matrices import gaussian

from mergekit_spectral.spectral import DenseDelta, truncate
from mergekit_spectral.spectral.numerics import exact_matmul, slices, smaller_blocks, working_dtype


@pytest.fixture
def low_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("dtype", "working"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_working_dtype(dtype: torch.dtype, working: torch.dtype):
    assert working_dtype(dtype) == working


def test_autocast_has_no_effect():
    delta = DenseDelta(gaussian((32, 48), 1)[0].float())
    expected = truncate(delta, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = truncate(delta, 40)
    assert torch.equal(actual.A, expected.A)


@pytest.mark.usefixtures("low_precision")
def test_process_wide_precision_is_set_and_restored():
    a, b = (m.float() for m in gaussian((256, 256), 2))
    exact = a.double() @ b.double()
    with exact_matmul():
        with exact_matmul():
            pass
        assert relative_error(a @ b, exact) < 1e-6
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.usefixtures("low_precision")
def test_last_thread_restores_the_precision():
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with exact_matmul():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    with exact_matmul():
        pass
    still_exact = torch.backends.mkldnn.matmul.fp32_precision
    leave.set()
    thread.join()
    assert still_exact == "ieee"
    assert torch.get_float32_matmul_precision() == "medium"


@given(st.integers(0, 300), st.integers(0, 50), st.integers(1, 2000), st.integers(1, 9))
def test_slices_are_equal_and_about_as_large_as_asked(
    length: int, width: int, entries: int, divisor: int
):
    with smaller_blocks(divisor):
        cut = slices(length, width, entries)
    assert [row for part in cut for row in range(length)[part]] == list(range(length))
    sizes = [len(range(length)[part]) for part in cut]
    most = entries // divisor
    assert all(size * width <= 1.5 * most or size == 1 for size in sizes)
    assert all(size == sizes[0] for size in sizes[:-1])


def test_a_short_rest_does_not_get_a_slice_of_its_own():
    assert slices(512, 10, 5000) == [slice(0, 512)]
    assert slices(1010, 10, 5000) == [slice(0, 505), slice(505, 1010)]
    assert len(slices(1600, 10, 5000)) == 3
