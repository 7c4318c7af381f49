"""`mergekit-spectral run`: the files of `mergekit-yaml`, whatever happens on the way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from filelock import FileLock
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import save_file
from support import checkpoints, interpreters, lost_workers, slow_workers
from support.checkpoints import Family
from support.interrupted import command_on_a_full_disk, in_child, killed_at
from support.recipe_builders import recipe
from transformers import AutoModelForCausalLM

from mergekit_spectral.command_line import run_run
from mergekit_spectral.command_line.main import main
from mergekit_spectral.command_line.run_run import in_words
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host import parts as host_parts
from mergekit_spectral.scaling import Progress, Summary, driver, parts, pools, staging
from mergekit_spectral.scaling.driver import merge as merge_in_parts
from mergekit_spectral.scaling.staging import FOLDER, Staging

SHARDS = 20_000
"""Bytes of a shard, with which the models here have several."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a part for each weight, or for a few."""
    monkeypatch.setattr(parts, "SHORTEST", 1e-9)
    monkeypatch.setattr(parts, "PARTS", 12)


@pytest.fixture(autouse=True)
def fork_server() -> None:
    """Have workers forked by the server of other tests, into which mergekit is not imported."""
    interpreters.start()


@pytest.fixture
def drm(llama: Family, tmp_path: Path) -> Path:
    return write(recipe("drm", llama, density=0.5), tmp_path)


def write(recipe: dict[str, Any], folder: Path) -> Path:
    path = folder / "recipe.yml"
    path.write_text("# Mine.\n" + yaml.safe_dump(recipe, sort_keys=False))
    return path


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def merged(*arguments: Any) -> str:
    result = command(*arguments)
    if result.exit_code:
        raise AssertionError(result.output) from result.exception
    return result.output


def by_mergekit(path: Path, out: Path, **options: Any) -> Path:
    """Merge as ``mergekit-yaml`` does, to a folder of the same name."""
    source = path.read_text()
    config = MergeConfiguration.model_validate(yaml.safe_load(source))
    run_merge(config, str(out), MergeOptions(quiet=True, **options), config_source=source)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files. The lines of cards are sorted: mergekit lists models in no fixed order."""
    files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {
        str(path): b"\n".join(sorted(found.split(b"\n"))) if path.name == "README.md" else found
        for path, found in files.items()
    }


def with_tokenizers(folder: Path) -> dict[str, Any]:
    """Write models with other vocabularies, whose embeddings mergekit recomputes."""
    base = checkpoints.llama()
    for name, added in (("base", []), ("one", ["<a>"]), ("two", ["<b>", "<c>"])):
        checkpoints.write_enlarged(folder / name, base, *added)
    models = Family(folder / "base", (folder / "one", folder / "two"))
    return {**recipe("drm", models), "tokenizer_source": "union"}


def with_adapters(method: str, folder: Path, **parameters: Any) -> dict[str, Any]:
    base = checkpoints.llama()
    base.save_pretrained(folder / "base")
    adapters = [checkpoints.write_adapter(folder / str(s), base, s, ["q_proj"]) for s in (1, 2)]
    inputs = tuple(Path(f"{folder / 'base'}+{adapter}") for adapter in adapters)
    return recipe(method, Family(folder / "base", inputs), **parameters)


def with_slices(llama: Family) -> dict[str, Any]:
    """Return a recipe whose model has layers twice, so that tensors are saved under two names."""
    ranges = ([0, 2], [1, 3])
    slices = [{"sources": [{"model": str(llama.base), "layer_range": r}]} for r in ranges]
    return {"merge_method": "passthrough", "slices": slices, "dtype": "float32"}


def optional_tensors(folder: Path) -> dict[str, Any]:
    """Return a recipe of models that lack tensors which their architecture allows."""
    return recipe("drm", checkpoints.write_family(folder, checkpoints.granite(), count=2))


@pytest.mark.parametrize("kind", ["full", "lora", "copies", "tokenizers", "slices", "optional"])
def test_the_same_files_as_mergekit(kind: str, llama: Family, tmp_path: Path):
    (tmp_path / "models").mkdir()
    written = {
        "full": lambda: {**recipe("drm", llama), "dtype": "bfloat16"},
        "lora": lambda: with_adapters("knots_ties", tmp_path / "models"),
        "copies": lambda: with_adapters("ties", tmp_path / "models", weight=1.0),
        "tokenizers": lambda: with_tokenizers(tmp_path / "models"),
        "slices": lambda: with_slices(llama),
        "optional": lambda: optional_tensors(tmp_path / "models"),
    }[kind]()
    path, cache = write(written, tmp_path), tmp_path / "cache"
    expected = by_mergekit(
        path, tmp_path / "its" / "model", out_shard_size=SHARDS, lora_merge_cache=str(cache)
    )
    out = tmp_path / "ours" / "model"
    output = merged(path, out, "--workers=1", f"--out-shard-size={SHARDS}")
    assert contents(out) == contents(expected)
    assert len(list(out.glob("*.safetensors"))) > 1
    assert "with one worker: read " in output
    AutoModelForCausalLM.from_pretrained(out)


def test_one_file_without_a_card(drm: Path, tmp_path: Path):
    expected = by_mergekit(drm, tmp_path / "its" / "model", write_model_card=False)
    merged(drm, out := tmp_path / "ours" / "model", "--workers=1", "--no-write-model-card")
    assert contents(out) == contents(expected)
    assert set(contents(out)) == {"model.safetensors", "config.json"}


def test_several_workers(drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # So that one worker cannot do everything before another has started.
    monkeypatch.setattr(pools, "merge_in_worker", slow_workers.merge_slowly_in_worker)
    merged(drm, one := tmp_path / "1" / "model", "--workers=1", "-j", 1)
    output = merged(drm, two := tmp_path / "2" / "model", "--workers=2", "-v")
    assert contents(one) == contents(two)
    lines = [line for line in output.splitlines() if ", process " in line]
    assert len(lines) > 3
    assert len({line.partition(":")[0] for line in lines}) == 2


@pytest.mark.parametrize("method", ["dare_ties", "knots_della"])
def test_random_draws_do_not_depend_on_the_parts(
    method: str, llama: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(recipe(method, llama, density=0.5, weight=1.0), tmp_path)
    merged(path, small := tmp_path / "small" / "model", "--workers=1", "--random-seed=3")
    monkeypatch.setattr(parts, "PARTS", 1)
    merged(path, large := tmp_path / "large" / "model", "--workers=1", "--random-seed=3")
    merged(path, other := tmp_path / "other" / "model", "--workers=1", "--random-seed=4")
    assert contents(small) == contents(large)
    assert contents(small) != contents(other)


def test_progress(drm: Path, tmp_path: Path):
    seen: list[Progress] = []
    summary = merge_in_parts(drm, tmp_path / "out", workers=1, progress=seen.append)
    assert [one.weights for one in seen] == sorted({one.weights for one in seen})
    assert (seen[0].weights, seen[0].share, seen[0].done) == (0, 0.0, None)
    assert (seen[-1].weights, seen[-1].of) == (summary.weights, summary.weights)
    assert seen[-1].share == pytest.approx(1)
    assert all(one.seconds_left is not None for one in seen[1:])
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert summary.written_bytes == size
    assert summary.read_bytes == pytest.approx(4 * size, rel=0.05)  # a base and three inputs


def test_a_disk_with_little_room(drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    size = by_mergekit(drm, tmp_path / "its").joinpath("model.safetensors").stat().st_size
    usage, free, total = shutil.disk_usage(tmp_path), size, 10 * size

    monkeypatch.setattr(
        driver.shutil, "disk_usage", lambda _: usage._replace(free=free, total=total)
    )
    out = tmp_path / "out"
    message = " ".join(command(drm, out, "--workers=1").output.split())
    assert f"The merge takes up to 0.2 MB in {out}, and the disk has 0.1 MB free; free" in message
    assert not out.exists()
    free = 2 * size
    stopped(drm, out, after=6)
    held = sum(path.stat().st_size for path in (out / FOLDER).rglob("*") if path.is_file())
    free = 2 * size - held // 2
    merged(drm, out, "--workers=1")
    free = 2 * size - 2 * held
    assert "free some" in command(drm, out, "--workers=1").output
    free = total = 0
    merged(drm, out, "--workers=1")


def test_quiet(drm: Path, tmp_path: Path):
    assert merged(drm, tmp_path / "out", "--workers=1", "--quiet") == ""


class StoppedError(Exception):
    pass


def stop_after(count: int) -> Any:
    """Return a function that stops a merge after some parts."""
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) > count:
            raise StoppedError

    return stop


def stopped(path: Path, out: Path, after: int = 3, **options: Any) -> None:
    with pytest.raises(StoppedError):
        merge_in_parts(path, out, workers=1, progress=stop_after(after), **options)


def test_continues(drm: Path, tmp_path: Path):
    merged(drm, expected := tmp_path / "whole" / "model", "--workers=1")
    stopped(drm, out := tmp_path / "stopped" / "model", after=3)
    assert not any(path.is_file() for path in out.iterdir())
    output = merged(drm, out, "--workers=1")
    assert "of them before) into" in output
    assert contents(out) == contents(expected)


def test_keeps_its_number_of_threads(drm: Path, tmp_path: Path):
    out = tmp_path / "out"
    stopped(drm, out, options=MergeOptions(num_threads=1))
    message = command(drm, out, "--workers=1", "-j", 2).output
    assert "was begun with 1 thread a worker, and 2 may round differently" in message
    merged(drm, out, "--workers=1", "-j", 1)


def test_another_recipe_is_refused(llama: Family, drm: Path, tmp_path: Path):
    out = tmp_path / "out"
    stopped(drm, out)
    drm.write_text(drm.read_text().replace("0.5", "0.4"))
    result = command(drm, out, "--workers=1")
    assert result.exit_code == 1
    assert f"{out} has an unfinished merge of another recipe" in result.output
    assert "start over with --restart" in result.output
    output = merged(drm, out, "--workers=1", "--restart")
    assert "before)" not in output
    by_mergekit(drm, tmp_path / "its" / "out")
    assert contents(out) == contents(tmp_path / "its" / "out")


def test_comments_are_no_other_recipe(drm: Path, tmp_path: Path):
    stopped(drm, out := tmp_path / "out")
    drm.write_text("# Still mine.\n" + drm.read_text())
    assert "of them before)" in merged(drm, out, "--workers=1")
    assert (out / "mergekit_config.yml").read_text() == drm.read_text()


def test_a_changed_input_is_noticed(tmp_path: Path):
    family = checkpoints.write_family(tmp_path / "models", checkpoints.llama(), count=2)
    path = write(recipe("drm", family), tmp_path)
    stopped(path, out := tmp_path / "out")
    file = family.tuned[0] / "model.safetensors"
    os.utime(file, (1, 1))
    assert "of them before)" in merged(path, out, "--workers=1")  # only its date has changed
    stopped(path, out)
    checkpoints.fine_tuned(checkpoints.llama(), 7).save_pretrained(family.tuned[0])
    assert "other inputs" in command(path, out, "--workers=1").output


def test_two_at_a_time_are_refused(drm: Path, tmp_path: Path):
    (tmp_path / "out" / FOLDER).mkdir(parents=True)
    with FileLock(tmp_path / "out" / FOLDER / "lock"):
        message = command(drm, tmp_path / "out").output
    assert f"Another merge is writing to {tmp_path / 'out'}" in " ".join(message.split())
    assert "remove" not in message


def test_replaces_another_model(drm: Path, tmp_path: Path):
    out = tmp_path / "model"
    merged(drm, out, "--workers=1", f"--out-shard-size={SHARDS}")
    by_mergekit(drm, tmp_path / "its" / "model")
    merged(drm, out, "--workers=1")
    assert contents(out) == contents(tmp_path / "its" / "model")


def test_weights_of_another_model_are_removed(drm: Path, tmp_path: Path):
    out = tmp_path / "model"
    out.mkdir()
    old = ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin"]
    kept = {"optimizer.bin": b"mine", "tokenizer.model": b"old", "model-notes.md": b"mine"}
    for name in (*old, *kept):
        (out / name).write_bytes(kept.get(name, b""))
    stopped(drm, out)
    assert all((out / name).exists() for name in old)
    merged(drm, out, "--workers=1")
    assert contents(out) == contents(by_mergekit(drm, tmp_path / "its" / "model")) | kept


def test_the_card_has_the_name_of_a_link(drm: Path, tmp_path: Path):
    for side in ("ours", "its"):
        (tmp_path / side / "elsewhere").mkdir(parents=True)
        (tmp_path / side / "link").symlink_to("elsewhere")
    merged(drm, tmp_path / "ours" / "link", "--workers=1")
    by_mergekit(drm, tmp_path / "its" / "link")
    ours, its = (contents(tmp_path / side / "elsewhere") for side in ("ours", "its"))
    assert b"# link" in ours["README.md"]
    assert ours == its


def test_a_folder_that_was_renamed(some_weights: Path, tmp_path: Path):
    stopped_while_moving(some_weights, out := tmp_path / "before")
    out.rename(tmp_path / "after")
    merged(some_weights, tmp_path / "after", "--workers=1")
    AutoModelForCausalLM.from_pretrained(tmp_path / "after")


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, such as Lustre may be."""

    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", fails)


@pytest.mark.usefixtures("without_flock")
def test_a_file_system_without_locks(some_weights: Path, tmp_path: Path):
    out = tmp_path / "out"

    def killed() -> None:
        with Staging(out).locked():
            signal.raise_signal(signal.SIGKILL)

    assert in_child(killed)[0] == -signal.SIGKILL
    assert (out / FOLDER / "lock").exists()
    merged(some_weights, out, "--workers=1")
    assert not (out / FOLDER).exists()
    with Staging(out).locked():
        message = " ".join(command(some_weights, out).output.split())
    assert f"Another merge is writing to {out}" in message
    assert message.endswith(f"on another machine, remove {out / FOLDER / 'lock'}.")


def looks_like_a_model(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return bool(names & {"config.json", "model.safetensors.index.json"})


@pytest.fixture
def some_weights(tmp_path: Path) -> Path:
    """A recipe that is fast to merge, and has two shards and a copy of an adapter."""
    base = checkpoints.llama(num_hidden_layers=1)
    base.save_pretrained(tmp_path / "base")
    inputs = [checkpoints.fine_tuned(base, seed) for seed in (1, 2)]
    for number, model in enumerate(inputs):
        model.save_pretrained(tmp_path / f"input-{number}")
    family = Family(tmp_path / "base", (tmp_path / "input-0", tmp_path / "input-1"))
    return write(recipe("drm", family), tmp_path)


def test_killed_at_any_moment(some_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "PARTS", 3)
    options = MergeOptions(out_shard_size=SHARDS, copy_tokenizer=False, quiet=True)
    merge = partial(merge_in_parts, some_weights, options=options, workers=1)
    merge(expected := tmp_path / "expected" / "model")
    expected_files = contents(expected)
    events = list(killed(merge, tmp_path))
    assert len(events) > 30
    for out in events:
        if looks_like_a_model(out):
            there = {name: found for name, found in contents(out).items() if FOLDER not in name}
            weights = {name for name in expected_files if name.endswith(".safetensors")}
            assert weights <= there.keys()
        merge(out)
        assert contents(out) == expected_files


def killed(merge: Any, folder: Path) -> Iterator[Path]:
    """Yield folders of merges that were killed, each at a later moment."""
    step = 0
    for number in range(1000):
        out = folder / str(number) / "model"
        if not killed_at(step, out.parent, partial(merge, out)):
            return
        yield out
        step += 1 + step // 12  # all of the first, and then fewer
    raise AssertionError("it never ended by itself")


@pytest.mark.parametrize("limit", [0, 4_000, 30_000])
def test_a_full_disk(limit: int, some_weights: Path, tmp_path: Path):
    out = tmp_path / "out"
    status, output = command_on_a_full_disk(
        limit, "run", str(some_weights), str(out), "--workers=1", "--no-copy-tokenizer"
    )
    assert status == 1, output
    assert "Traceback" not in output
    assert "free space on the disk" in " ".join(output.split())
    assert not looks_like_a_model(out)
    merged(some_weights, out, "--workers=1", "--no-copy-tokenizer")
    by_mergekit(some_weights, tmp_path / "its" / "out", copy_tokenizer=False)
    assert contents(out) == contents(tmp_path / "its" / "out")


def test_workers_that_are_killed_are_replaced(
    drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parts, "PARTS", 3)
    merged(drm, expected := tmp_path / "1" / "model", "--workers=1", "-j", 1)
    monkeypatch.setattr(pools, "merge_in_worker", lost_workers.killed_once)
    summary = merge_in_parts(drm, out := tmp_path / "2" / "model", workers=2)
    assert contents(out) == contents(expected)
    assert summary.continued == 0


def test_a_part_whose_workers_are_always_killed(
    drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pools, "merge_in_worker", lost_workers.killed_always)
    with pytest.raises(MergeError, match=r"killed 3 times while it merged tensor"):
        merge_in_parts(drm, tmp_path / "out", workers=2)
    assert not looks_like_a_model(tmp_path / "out")


def test_a_worker_that_fails_says_why(llama: Family, tmp_path: Path):
    family = checkpoints.write_family(tmp_path / "models", checkpoints.llama(), count=2)
    tensors = checkpoints.tensors(family.tuned[0])
    tensors["model.layers.2.mlp.up_proj.weight"][0, 0] = float("nan")
    checkpoints.write_tensors(family.tuned[0], tensors)
    path = write(recipe("drm", family), tmp_path)
    for workers in (1, 2):
        result = command(path, tmp_path / "out", f"--workers={workers}", "-j", 1)
        assert result.exit_code == 1
        assert "model.layers.2.mlp.up_proj.weight" in result.output
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "--workers=2"], "--workers is for this machine"),
        (["--out-shard-size=many"], "--out-shard-size many is not a size such as 5B or 500M."),
        (["--workers=0"], "0 is not in the range"),
    ],
)
def test_options_that_cannot_be(options: list[str], message: str, drm: Path, tmp_path: Path):
    result = command(drm, tmp_path / "out", *options)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())


def test_an_error_in_the_recipe(llama: Family, tmp_path: Path):
    path = write(recipe("drm", llama, density=2), tmp_path)
    result = command(path, tmp_path / "out")
    assert result.exit_code == 1
    assert "`density` must be" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_what_other_machines_write_must_be_seen(
    drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(staging, "VISIBLE_AFTER", 0.0)

    def hide(progress: Progress) -> None:
        if progress.done is not None:
            (hidden,) = (tmp_path / "out" / FOLDER).glob(f"parts-*/{progress.done.part.file}")
            hidden.unlink()

    with pytest.raises(MergeError, match=r"00000.safetensors .* is not visible here"):
        merge_in_parts(drm, tmp_path / "out", workers=1, progress=hide)


def test_out_is_none_of_the_models(drm: Path, llama: Family):
    message = " ".join(command(drm, llama.tuned[0], "--workers=1").output.split())
    assert f"{llama.tuned[0]} is the folder of {llama.tuned[0]}, which the merge reads" in message
    assert (llama.tuned[0] / "config.json").exists()


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--cuda", "`--device` cuda cannot be used (PyTorch finds no GPU on this machine)"),
        ("--device=cuda:3", "`--device` cuda:3 cannot be used (PyTorch finds no GPU"),
        ("--device=nowhere", "`--device` nowhere cannot be used"),
    ],
)
def test_a_device_that_is_not_there(
    option: str, reason: str, drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    message = " ".join(command(drm, tmp_path / "out", option).output.split())
    assert reason in message
    assert not (tmp_path / "out").exists()


def test_ray_is_not_installed(drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pools, "find_spec", lambda _: None)
    result = command(drm, tmp_path / "out", "--ray")
    assert 'run --ray needs the extra `ray`: run `pip install ".[ray]"`' in result.output
    assert not (tmp_path / "out").exists()


def test_the_state_can_be_read_by_people(drm: Path, tmp_path: Path):
    stopped(drm, tmp_path / "out", options=MergeOptions(num_threads=1))
    state = json.loads((tmp_path / "out" / FOLDER / "merge.json").read_text())
    assert state["threads"] == 1
    assert state["parts"] > 3


def test_a_changed_tokenizer_is_noticed(tmp_path: Path):
    (tmp_path / "models").mkdir()
    path = write(with_tokenizers(tmp_path / "models"), tmp_path)
    stopped(path, out := tmp_path / "out")
    checkpoints.write_enlarged(tmp_path / "models" / "one", checkpoints.llama(), "<d>")
    assert "other inputs" in command(path, out, "--workers=1").output


def test_stopped_while_it_removes_its_folder(
    drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    remove, out = staging.shutil.rmtree, tmp_path / "out"

    def remove_some(folder: str | Path, **_: Any) -> None:
        folder = Path(folder)
        remove(folder / "model" if folder.name == FOLDER else folder, ignore_errors=True)
        if (out / "config.json").exists():
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(staging.shutil, "rmtree", remove_some)
        with pytest.raises(StoppedError):
            merge_in_parts(drm, out, workers=1)
    expected = contents(out)
    merge_in_parts(drm, out, workers=1)
    assert contents(out) == {name: expected[name] for name in expected if FOLDER not in name}


def stopped_while_moving(path: Path, out: Path) -> None:
    """Stop a merge before the last of the whole model's files is at its place."""
    replace_file = Path.replace

    def replace_some(file: Path, target: Path) -> None:
        if target == out / "config.json":
            raise StoppedError
        replace_file(file, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace_some)
        with pytest.raises(StoppedError):
            merge_in_parts(path, out, workers=1)


def test_a_whole_model_is_moved_without_the_inputs(some_weights: Path, tmp_path: Path):
    by_mergekit(some_weights, tmp_path / "its" / "model")
    stopped_while_moving(some_weights, out := tmp_path / "model")
    assert not looks_like_a_model(out)
    shutil.rmtree(tmp_path / "input-0")
    written = some_weights.read_text()
    some_weights.write_text(written.replace("drm", "ties"))
    assert command(some_weights, out, "--workers=1").exit_code == 1
    some_weights.write_text(written)
    output = " ".join(merged(some_weights, out, "--workers=1").split())
    assert "only moved to its place; the inputs are not read again" in output
    assert "Merged 12 weights (12 of them before)" in output
    assert contents(out) == contents(tmp_path / "its" / "model")


def test_a_state_that_cannot_be_read_is_kept(drm: Path, tmp_path: Path):
    stopped(drm, out := tmp_path / "out")
    (out / FOLDER / "merge.json").write_text('{"of": "another version"}')
    before = contents(out)
    message = " ".join(command(drm, out, "--workers=1").output.split())
    assert "merge.json cannot be read" in message
    assert contents(out) == before
    assert "before)" not in merged(drm, out, "--workers=1", "--restart")


def test_a_tensor_that_is_lost_is_noticed(
    drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stopped(drm, out := tmp_path / "out", after=3)
    (part, *_) = sorted((out / FOLDER).glob("parts-*/*.safetensors"))
    save_file({}, part)
    message = " ".join(command(drm, out, "--workers=1").output.split())
    assert "is in no file of the unfinished merge; start over" in message


def test_shards_are_on_the_disk_before_parts_are_removed(
    drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []
    release = staging.Staging.release
    monkeypatch.setattr(host_parts, "flush", lambda file: events.append("flush"))
    monkeypatch.setattr(
        staging.Staging, "release", lambda *each: (events.append("remove"), release(*each))
    )
    merge_in_parts(drm, tmp_path / "out", workers=1)
    assert events[0] == "flush"
    assert "remove" in events


def test_options_of_mergekit_for_several_gpus_have_no_effect(drm: Path, tmp_path: Path):
    options = MergeOptions(multi_gpu=True)
    merge_in_parts(drm, out := tmp_path / "out", options, workers=1)
    by_mergekit(drm, tmp_path / "its" / "out")
    assert contents(out) == contents(tmp_path / "its" / "out")


def test_an_interrupt_says_how_to_continue(
    drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_run, "merge", interrupted)
    result = command(drm, tmp_path / "out", "--workers=1")
    assert result.exit_code == 1
    assert "Run the same command again to continue." in result.output


def test_workers_do_not_print_what_transformers_warns_of(
    drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    command(drm, tmp_path / "out", "--workers=1")
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")  # as the user wants
    command(drm, tmp_path / "out", "--workers=1")
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"


def test_the_summary_counts_workers_that_there_were():
    summary = Summary(3, 0, 2, 10.0, 500_000_000, 700_000_000, 10**9, 10**9)
    assert "0.5 GB of memory here and 0.7 GB in a worker, with" in in_words(summary, Path("out"))
    for of_none in (replace(summary, worker_bytes=0), replace(summary, workers=1)):
        assert "0.5 GB of memory here, with" in in_words(of_none, Path("out"))


def test_is_locked_to_its_end(drm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The lock stays while the merge runs, so that no other can begin in between."""
    locked: list[bool] = []
    move_up = staging.Staging.move_up

    def and_look(self: staging.Staging) -> int:
        size = move_up(self)
        locked.append((self.folder / "lock").exists())
        return size

    monkeypatch.setattr(staging.Staging, "move_up", and_look)
    merge_in_parts(drm, tmp_path / "out", workers=1)
    assert locked == [True]
    assert not (tmp_path / "out" / FOLDER).exists()
