"""How a merge is cut, and what it takes with several workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mergekit.options import MergeOptions
from support import checkpoints
from support.recipe_builders import recipe

from mergekit_spectral.checking.checks import check, plan_whole_merge
from mergekit_spectral.checking.timing import Speeds
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.scaling import estimate_run, parts, resources
from mergekit_spectral.scaling.parts import Part, cut


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    family = checkpoints.write_family(folder, checkpoints.llama())
    written = folder / "recipe.yml"
    written.write_text(yaml.safe_dump(recipe("drm", family)))
    return written


@pytest.fixture(scope="module")
def merge(path: Path) -> PlannedMerge:
    plan, findings = plan_whole_merge(path, MergeOptions(copy_tokenizer=False), path.parent / "out")
    assert not findings
    return plan


def cut_into(merge: PlannedMerge, count: int, largest: int) -> list[Part]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SHORTEST", 1e-12)
        patch.setattr(parts, "PARTS", count)
        patch.setattr(parts, "LARGEST", largest)
        return cut(merge)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 100), largest=st.integers(1, 10**6))
def test_each_weight_is_in_one_part(merge: PlannedMerge, count: int, largest: int):
    found = cut_into(merge, count, largest)
    names = [name for part in found for name in part.names]
    assert names == [tensor.name for tensor in merge.tensors]
    assert [part.number for part in found] == list(range(len(found)))
    assert len({part.file for part in found}) == len(found)
    whole = sum(part.seconds() for part in found)
    for part in found:
        assert len(part.names) == 1 or part.written_bytes <= largest
        assert len(part.names) == 1 or part.seconds() <= 1.001 * whole / count
        assert part.memory > part.written_bytes


def test_parts_are_neither_short_nor_long(merge: PlannedMerge, monkeypatch: pytest.MonkeyPatch):
    (whole,) = cut(merge)
    assert len(whole.names) == len(merge.tensors)
    longest = max(part.seconds() for part in cut_into(merge, 10**6, 10**9))
    monkeypatch.setattr(parts, "SHORTEST", 0.0)
    monkeypatch.setattr(parts, "PARTS", 1)
    monkeypatch.setattr(parts, "LONGEST", 2.1 * longest)
    found = cut(merge)
    assert len(found) > 3
    assert max(part.seconds() for part in found) <= 2.1 * longest


def test_parts_count_what_is_read_and_written(merge: PlannedMerge):
    found = cut_into(merge, 5, 10**9)
    size = sum(tensor.nbytes for tensor in checkpoints.tensors(path_of_base(merge)).values())
    assert sum(part.written_bytes for part in found) == size
    assert sum(part.read_bytes for part in found) == 4 * size  # the base and three inputs


def path_of_base(merge: PlannedMerge) -> Path:
    (base,) = merge.recipe.base_models
    return merge.models[base].checkpoint.folder


def test_more_workers_take_less_time_and_more_memory(
    path: Path, merge: PlannedMerge, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resources, "measure_speeds", lambda *_: Speeds(1e6, 1e6, 1e6))
    monkeypatch.setattr(parts, "SHORTEST", 1e-12)
    costs = check(path, path.parent / "out").costs
    assert costs is not None
    one, two, four, many = (estimate_run(merge, costs, workers) for workers in (1, 2, 4, 1000))
    computing = [each.seconds - 2 * costs.startup_seconds for each in (one, two, four)]
    assert computing[0] > 1
    assert computing[1] == pytest.approx(computing[0] / 2, rel=0.1)
    assert computing[2] == pytest.approx(computing[0] / 4, rel=0.2)
    assert many.seconds >= 2 * costs.startup_seconds
    assert one.memory_bytes == one.worker_bytes
    assert four.memory_bytes - two.memory_bytes == 2 * two.worker_bytes
    assert two.disk_bytes == 2 * costs.output_bytes


def test_workers_are_as_many_as_there_is_room_for(
    merge: PlannedMerge, monkeypatch: pytest.MonkeyPatch
):
    found = cut_into(merge, 5, 10**9)
    monkeypatch.setattr(resources, "GROUP", Path("nowhere"))
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: range(4), raising=False)
    assert resources.default_workers(found, MergeOptions()) == 4
    assert resources.default_workers(found[:3], MergeOptions()) == 3
    monkeypatch.setattr(resources, "FREE_SHARE", 1e-9)
    assert resources.default_workers(found, MergeOptions()) == 1
    assert resources.threads_of(1) == resources.torch.get_num_threads()
    assert resources.threads_of(2) == 2
    assert resources.threads_of(8) == 1


def test_containers_have_less(merge: PlannedMerge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources, "GROUP", tmp_path)
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: range(8), raising=False)
    found = cut_into(merge, 12, 10**9)
    assert len(found) > 8
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert resources.default_workers(found, MergeOptions()) == 8
    (tmp_path / "cpu.max").write_text("350000 100000\n")
    assert resources.default_workers(found, MergeOptions()) == 3
    each = resources.PROCESS_BYTES + max(part.memory for part in found)
    (tmp_path / "memory.max").write_text(f"{5 * 10**9 + int(2.5 * each / 0.8)}\n")
    (tmp_path / "memory.stat").write_text("anon 5000000000\nfile 7000000000\n")
    assert resources.default_workers(found, MergeOptions()) == 2
