"""Properties that follow from the methods' definitions, on random deltas in float64."""

from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergekit.merge_methods import get, merge_tensors, registered_methods
from reference import relative_error
from support.matrices import SPECTRA, delta_groups, gaussian, orthogonal, with_spectrum
from torch import Tensor

from mergekit_spectral.methods import KnOTS, MergeError, SpectralMethod
from mergekit_spectral.spectral import DenseDelta, FactoredDelta
from mergekit_spectral.spectral.numerics import smaller_blocks
from mergekit_spectral.spectral.svd import eigen

# Parameters with which nothing is pruned, so that a single input is returned unchanged.
WHOLE: dict[str, dict[str, Any]] = {
    "drm": {"density": 1.0, "rank_tolerance": 0.0},
    "star": {"eta": 100},
    "iso": {"flatten": 0.0, "rank_tolerance": 0.0},
    "tsvm": {"share": 5.0, "rank_tolerance": 0.0},
    "actmat": {"rank_tolerance": 0.0},
} | {
    method.spec.name: {"density": 1.0, "rank_tolerance": 0.0}
    for method in registered_methods()
    if isinstance(method, KnOTS)
}
WHOLE["knots_task_arithmetic"]["normalize"] = True
for linear in ("dare_linear", "della_linear", "breadcrumbs", "dare_ties", "breadcrumbs_ties"):
    WHOLE[f"knots_{linear}"]["normalize"] = True

SETTINGS: dict[str, dict[str, Any]] = {
    "drm": {"density": 0.4},
    "knots_ties": {"density": 0.4},
    "knots_breadcrumbs": {"density": 0.5},
    "star": {"eta": 60},
    "iso": {"flatten": 0.5},
    "tsvm": {"share": 0.8},
    "actmat": {"rank_tolerance": 0.2},
}
ADDS = ["iso"]
"""Methods that add their inputs where others average them."""

ROTATED = ["iso", "tsvm"]
"""Methods that treat both sides of a matrix in the same way."""

DIRECTED = ["drm", "knots_ties", "knots_breadcrumbs", "actmat"]

whole = pytest.mark.parametrize("method", WHOLE)
every = pytest.mark.parametrize("method", SETTINGS)
directed = pytest.mark.parametrize("method", DIRECTED)
directions = pytest.mark.parametrize("direction", ["horizontal", "vertical", "auto"])


def merge(deltas: list[Tensor], method: str, **parameters: Any) -> Tensor:
    base = torch.zeros_like(deltas[0])
    return merge_tensors([base, *deltas], method, base_index=0, parameters=parameters)


def test_all_methods_are_tested():
    names = {m.spec.name for m in registered_methods() if isinstance(m, SpectralMethod)}
    assert names == set(WHOLE)
    assert len(names) == 14


@whole
@given(deltas=delta_groups(max_inputs=1))
def test_one_input_is_returned_unchanged(method: str, deltas: list[Tensor]):
    assert relative_error(merge(deltas, method, **WHOLE[method]), deltas[0]) < 1e-9


@whole
@given(deltas=delta_groups(max_inputs=1), count=st.integers(2, 4))
def test_copies_of_one_input_give_the_input(method: str, deltas: list[Tensor], count: int):
    merged = merge(deltas * count, method, **WHOLE[method])
    expected = count * deltas[0] if method in ADDS else deltas[0]
    assert relative_error(merged, expected) < 1e-9


def test_copies_of_one_input_give_its_truncation_with_star():
    (delta,) = gaussian((7, 5), 1)
    assert relative_error(merge([delta] * 3, "star"), reference.truncate(delta, 40)) < 1e-9


@every
@given(seed=st.integers(0, 1000))
def test_order_of_inputs_has_no_effect(method: str, seed: int):
    deltas = gaussian((6, 9), 3, seed)
    weights = [1.0, 0.5, 2.0]
    merged = merge(deltas, method, weight=weights, **SETTINGS[method])
    reordered = merge(deltas[::-1], method, weight=weights[::-1], **SETTINGS[method])
    assert relative_error(reordered, merged) < 1e-9


@every
@given(seed=st.integers(0, 1000), scale=st.sampled_from([-3.0, 1e-4, 1e6]))
def test_scaling_the_inputs_scales_the_result(method: str, seed: int, scale: float):
    deltas = gaussian((6, 9), 3, seed)
    merged = merge(deltas, method, **SETTINGS[method])
    scaled = merge([scale * delta for delta in deltas], method, **SETTINGS[method])
    assert relative_error(scaled, scale * merged) < 1e-9


@directed
@given(seed=st.integers(0, 1000))
def test_rotating_the_output_space_rotates_the_result_of_horizontal(method: str, seed: int):
    deltas, Q = gaussian((6, 9), 3, seed), orthogonal(6, seed)
    merged = merge(deltas, method, **SETTINGS[method])
    rotated = merge([Q @ delta for delta in deltas], method, **SETTINGS[method])
    assert relative_error(rotated, Q @ merged) < 1e-8


@directed
@given(seed=st.integers(0, 1000))
def test_rotating_the_input_space_rotates_the_result_of_vertical(method: str, seed: int):
    deltas, Q = gaussian((6, 9), 3, seed), orthogonal(9, seed)
    settings = SETTINGS[method] | {"direction": "vertical"}
    merged = merge(deltas, method, **settings)
    rotated = merge([delta @ Q for delta in deltas], method, **settings)
    assert relative_error(rotated, merged @ Q) < 1e-8


@pytest.mark.parametrize("method", ROTATED)
@given(seed=st.integers(0, 1000))
def test_rotating_both_spaces_rotates_the_result(method: str, seed: int):
    deltas, P, Q = gaussian((6, 9), 3, seed), orthogonal(6, seed), orthogonal(9, seed)
    merged = merge(deltas, method, **SETTINGS[method])
    rotated = merge([P @ delta @ Q for delta in deltas], method, **SETTINGS[method])
    assert relative_error(rotated, P @ merged @ Q) < 1e-8


@pytest.mark.parametrize("method", ROTATED)
@given(seed=st.integers(0, 1000), shape=st.sampled_from([(6, 9), (9, 6)]))
def test_transposing_the_inputs_transposes_the_result(
    method: str, seed: int, shape: tuple[int, int]
):
    deltas = gaussian(shape, 3, seed)
    merged = merge(deltas, method, **SETTINGS[method])
    transposed = merge([delta.T for delta in deltas], method, **SETTINGS[method])
    assert relative_error(transposed, merged.T) < 1e-8


@directed
@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (6, 6)])
def test_auto_uses_the_smaller_side(method: str, shape: tuple[int, int]):
    deltas = gaussian(shape, 3)
    expected = "horizontal" if shape[0] <= shape[1] else "vertical"
    auto = merge(deltas, method, direction="auto", **SETTINGS[method])
    assert torch.equal(auto, merge(deltas, method, direction=expected, **SETTINGS[method]))


@directed
@directions
def test_factored_and_dense_inputs_agree(method: str, direction: str):
    factors = list(zip(gaussian((9, 2), 3), gaussian((2, 7), 3, seed=1), strict=True))
    implementation = get(method)
    settings = {p.name: p.default for p in implementation.spec.parameters}
    settings |= {"direction": direction, "weight": [1.0] * 3, "density": [0.5] * 3}
    settings |= {"gamma": [0.01] * 3}
    dense = implementation.merge_matrices([DenseDelta(B @ A) for B, A in factors], settings)
    factored = implementation.merge_matrices([FactoredDelta(B, A) for B, A in factors], settings)
    assert relative_error(factored.to_dense(), dense.to_dense()) < 1e-8


def test_star_keeps_nuclear_norms():
    deltas = gaussian((8, 5), 2)
    for delta in deltas:
        norms = [torch.linalg.svdvals(d).sum() for d in (merge([delta], "star"), delta)]
        torch.testing.assert_close(*norms)


@given(deltas=delta_groups(min_inputs=2))
def test_knots_does_not_change_task_arithmetic(deltas: list[Tensor]):
    aligned = merge(deltas, "knots_task_arithmetic", rank_tolerance=0.0)
    plain = merge(deltas, "task_arithmetic", weight=1.0)
    assert relative_error(aligned, plain) < 1e-9


@given(
    deltas=delta_groups(min_inputs=2),
    density=st.floats(0.05, 1),
    direction=st.sampled_from(["horizontal", "vertical", "auto"]),
    normalize=st.booleans(),
)
def test_drm_agrees_with_the_definition(
    deltas: list[Tensor], density: float, direction: str, normalize: bool
):
    settings: dict[str, Any] = {"density": density, "direction": direction}
    if min(map(torch.linalg.matrix_rank, deltas)) == 1:
        settings["density"] = 1.0  # rank-1 inputs have exact ties at the threshold
    weights = [1.0, 0.5, 2.0, 1.5][: len(deltas)]
    actual = merge(deltas, "drm", weight=weights, normalize=normalize, **settings)
    expected = reference.drm(deltas, weights=weights, normalize=normalize, **settings)
    assert relative_error(actual, expected) < 1e-6


@given(
    deltas=delta_groups(min_inputs=2),
    etas=st.lists(st.floats(1, 100), min_size=4, max_size=4),
    normalize=st.booleans(),
)
def test_star_agrees_with_the_definition(deltas: list[Tensor], etas: list[float], normalize: bool):
    T = len(deltas)
    weights = [1.0, 0.5, 2.0, 1.5][:T]
    settings: dict[str, Any] = {"eta": etas[:T], "normalize": normalize}
    actual = merge(deltas, "star", weight=weights, **settings)
    assert relative_error(actual, reference.star(deltas, weights=weights, **settings)) < 1e-9


@given(deltas=delta_groups(), flatten=st.floats(0, 1), rank_tolerance=st.floats(0.001, 0.5))
def test_iso_agrees_with_the_definition(
    deltas: list[Tensor], flatten: float, rank_tolerance: float
):
    weights = [1.0, 0.5, 2.0, 1.5][: len(deltas)]
    settings = {"flatten": flatten, "rank_tolerance": rank_tolerance}
    actual = merge(deltas, "iso", weight=weights, **settings)
    assert relative_error(actual, reference.iso(deltas, weights, **settings)) < 1e-9


@given(seed=st.integers(0, 10**6), shares=st.lists(st.floats(0.05, 4), min_size=3, max_size=3))
def test_tsvm_agrees_with_the_definition(seed: int, shares: list[float]):
    deltas, weights = gaussian((8, 12), 3, seed), [1.0, 0.5, -2.0]
    actual = merge(deltas, "tsvm", weight=weights, share=shares)
    assert relative_error(actual, reference.tsvm(deltas, weights, share=shares)) < 1e-7


@pytest.mark.parametrize("share", [1e308, float("inf")])
def test_tsvm_with_a_share_beyond_all_directions(share: float):
    deltas = gaussian((8, 6), 3)
    assert torch.equal(merge(deltas, "tsvm", share=share), merge(deltas, "tsvm", share=3))


@pytest.mark.parametrize("method", ["tsvm", "actmat"])
def test_an_input_of_weight_0_takes_no_directions_from_others(method: str):
    deltas = gaussian((8, 6), 3)
    alone = merge(deltas[:2], method)
    assert relative_error(merge(deltas, method, weight=[1, 1, 0]), alone) < 1e-12


@given(
    deltas=delta_groups(),
    direction=st.sampled_from(["horizontal", "vertical", "auto"]),
    rank_tolerance=st.floats(0.01, 0.5),
    normalize=st.booleans(),
)
def test_actmat_agrees_with_the_definition(
    deltas: list[Tensor], direction: str, rank_tolerance: float, normalize: bool
):
    weights = [1.0, 0.5, -2.0, 1.5][: len(deltas)]
    settings: dict[str, Any] = {"direction": direction, "rank_tolerance": rank_tolerance}
    settings["normalize"] = normalize
    actual = merge(deltas, "actmat", weight=weights, **settings)
    assert relative_error(actual, reference.actmat(deltas, weights, **settings)) < 1e-9


@given(deltas=delta_groups())
def test_actmat_without_a_tolerance_is_the_published_formula(deltas: list[Tensor]):
    C = [delta.T @ delta for delta in deltas]
    rank = torch.linalg.matrix_rank(torch.cat(deltas))
    values, V = torch.linalg.eigh(sum(C))
    inverse = (V[:, -rank:] / values[-rank:]) @ V[:, -rank:].T
    published = sum(d @ c for d, c in zip(deltas, C, strict=True)) @ inverse
    merged = merge(deltas, "actmat", direction="vertical", rank_tolerance=0.0)
    assert relative_error(merged, published) < 1e-6


@pytest.mark.parametrize(
    "weight", [[1, -1, 0], [1, -2, 1], [-1, -1, -1], [1e38] * 3, [1e-300, 1, 1]]
)
def test_actmat_with_unusual_weights(weight: list[float]):
    deltas = gaussian((8, 6), 3)
    merged = merge(deltas, "actmat", weight=weight)
    assert relative_error(merged, reference.actmat(deltas, weight)) < 1e-9


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("method", ["iso", "tsvm", "actmat"])
def test_weights_of_0_give_the_base(method: str, normalize: bool):
    merged = merge(gaussian((8, 6), 3), method, weight=[0, 0, 0], normalize=normalize)
    assert not merged.any()


@pytest.mark.parametrize("kind", ["rank 0", "zeros"])
@pytest.mark.parametrize("tolerance", [0.1, 0.0])
def test_actmat_of_factors_that_change_nothing(kind: str, tolerance: float):
    B, A = gaussian((8, 2), 1)[0].float(), gaussian((2, 6), 1, seed=1)[0].float()
    nothing = FactoredDelta(B[:, :0], A[:0]) if kind == "rank 0" else FactoredDelta(0 * B, A)
    settings = {"normalize": True, "direction": "auto", "rank_tolerance": tolerance}
    for weight, expected in ([1.0, 1.0], B @ A), ([1.0, 0.0], 0 * (B @ A)):
        deltas = [nothing, FactoredDelta(B, A)]
        merged = get("actmat").merge_matrices(deltas, settings | {"weight": weight}).to_dense()
        torch.testing.assert_close(merged, expected)


@pytest.mark.parametrize("size", [1e-25, 1e25])
@pytest.mark.parametrize("tolerance", [0.1, 0.001])
def test_actmat_of_inputs_whose_squares_are_out_of_range(size: float, tolerance: float):
    deltas = [(size * delta).float() for delta in gaussian((96, 80), 3)]
    merged = merge(deltas, "actmat", rank_tolerance=tolerance)
    exact = [delta.double() for delta in deltas]
    assert relative_error(merged, reference.actmat(exact, rank_tolerance=tolerance)) < 1e-5


def test_singular_values_out_of_range_are_refused():
    """Each entry of the coordinates is in range, but the singular value is not."""
    row = 1e36 * gaussian((1, 4000), 1)[0]
    delta = (gaussian((64, 1), 1)[0] @ row).float()
    with pytest.raises(MergeError, match="the singular values are out of their dtype's range"):
        merge([delta], "actmat")


@directions
def test_actmat_of_inputs_without_a_common_direction_is_their_sum(direction: str):
    first, second = gaussian((8, 12), 2)
    first[4:], second[:4], first[:, 6:], second[:, :6] = 0, 0, 0, 0
    merged = merge([first, second], "actmat", direction=direction, rank_tolerance=0.0)
    assert relative_error(merged, first + second) < 1e-9


@pytest.mark.parametrize("tolerance", [1e-6, 0.001, 0.009, 0.01, 0.05])
def test_accuracy_of_actmat_where_weak_directions_are_kept(tolerance: float):
    """Rounding in float32 would be amplified by the square of the tolerance's inverse."""
    deltas = [delta.float() for delta in with_spectrum("power law", (96, 80), 3)]
    merged = merge(deltas, "actmat", rank_tolerance=tolerance)
    expected = reference.actmat(deltas, rank_tolerance=tolerance)
    assert relative_error(merged, expected) < (1e-6 if tolerance < 0.01 else 5e-4)


def test_drm_with_a_density_for_each_input():
    deltas = gaussian((8, 6), 3)
    actual = merge(deltas, "drm", density=[0.2, 0.5, 1.0])
    assert relative_error(actual, reference.drm(deltas, density=[0.2, 0.5, 1.0])) < 1e-9


# (size from which the eigendecomposition is done in steps, divisor of the block size)
WAYS = {"whole": (2048, 1), "in steps": (8, 1), "in small blocks": (2048, 1 << 11)}


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(96, 128), (192, 48)])
@pytest.mark.parametrize("way", WAYS)
def test_accuracy_on_real_spectra(
    kind: str,
    dtype: torch.dtype,
    shape: tuple[int, int],
    way: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """Within 1e-3 of the float64 definition on the same input values."""
    large, divisor = WAYS[way]
    monkeypatch.setattr(eigen, "_MEDIUM", large)
    monkeypatch.setattr(eigen, "threads_compete", lambda _side: False)
    monkeypatch.setattr(eigen, "_LARGE", large)
    (base,) = (0.02 * gaussian(shape, 1, seed=77)[0]).to(dtype).unsqueeze(0)
    inputs = [(base.double() + delta).to(dtype) for delta in with_spectrum(kind, shape, 3)]
    deltas = [tensor.double() - base.double() for tensor in inputs]
    for name, definition in [
        ("drm", reference.drm),
        ("knots_ties", reference.knots_ties),
        ("star", reference.star),
        ("iso", reference.iso),
        ("tsvm", reference.tsvm),
        ("actmat", reference.actmat),
    ]:
        method = get(name)
        settings = {p.name: p.default for p in method.spec.parameters}
        settings |= {"weight": [1.0] * 3, "density": [0.5] * 3, "eta": [40.0] * 3}
        settings |= {"share": [1.0] * 3}
        own = {"density": 0.5} if name in ("drm", "knots_ties") else {}
        with smaller_blocks(divisor):
            merged = method.merge_matrices(
                [DenseDelta(tensor, base) for tensor in inputs], settings
            ).to_dense()
        assert relative_error(merged, definition(deltas, **own)) < 1e-3
