"""Precision of matrix products, whatever the process has set."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from reference import relative_error
from support.matrices import gaussian

from mergekit_spectral.spectral import DenseDelta, truncate
from mergekit_spectral.spectral.numerics import exact_matmul, working_dtype


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
