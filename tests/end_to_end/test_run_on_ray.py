"""`mergekit-spectral run --ray` on a real cluster, one node of which is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner
from support import slow_workers
from support.checkpoints import Family
from support.recipe_builders import recipe

from mergekit_spectral.command_line.main import main
from mergekit_spectral.scaling import Progress, merge, parts, pools

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
MEMORY = 100 * 2**20


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of a head that computes nothing, and of two nodes with a core each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    node = {"object_store_memory": MEMORY, "include_dashboard": False}
    started = Cluster(True, head_node_args={"num_cpus": 0, **node})
    try:
        started.nodes = [started.add_node(num_cpus=1, **node) for _ in range(2)]
        yield started
    finally:
        started.shutdown()


def node_of(process: int, cluster: Any) -> Any:
    """Return the node that a worker is on."""
    raylet = psutil.Process(process).ppid()
    (found,) = [
        node for node in cluster.nodes if node.all_processes["raylet"][0].process.pid == raylet
    ]
    return found


def test_a_node_that_is_killed(
    cluster: Any, llama: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parts, "SHORTEST", 1e-9)
    monkeypatch.setattr(parts, "PARTS", 12)
    monkeypatch.setattr(pools, "merge_part", slow_workers.merge_slowly)
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe("drm", llama, density=0.5)))
    workers: list[str] = []

    def kill_its_node(progress: Progress) -> None:
        if progress.done is not None:
            workers.append(progress.done.worker)
        if len(workers) == 1:
            process = int(workers[0].rpartition(" ")[2])
            cluster.remove_node(node_of(process, cluster), allow_graceful=False)

    summary = merge(path, tmp_path / "ray" / "model", ray=cluster.address, progress=kill_its_node)
    assert len(workers) > 8
    assert workers[-1] != workers[0]
    assert summary.workers is None
    result = CliRunner().invoke(
        main, ["run", str(path), str(tmp_path / "here" / "model"), "--workers=1", "-j", "1"]
    )
    assert result.exit_code == 0, result.output
    ours, its = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "model").iterdir()}
        for name in ("here", "ray")
    )
    assert ours.keys() == its.keys()
    assert ours["model.safetensors"] == its["model.safetensors"]
