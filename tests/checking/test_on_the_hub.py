"""`check --hub`: models on the Hub are checked as local copies are, without their weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from click.testing import CliRunner
from mergekit.common import ModelReference
from mergekit.options import MergeOptions
from support import checkpoints, hub
from support.hub_server import HubServer, run_hub, use_hub
from support.planted_faults import Workshop, removed, truncated

from mergekit_spectral.checking.checks import check
from mergekit_spectral.checking.report import Report
from mergekit_spectral.command_line.main import main
from mergekit_spectral.errors import MergeError
from mergekit_spectral.scaling import merge

BASE, ADAPTER = "lab/base", "lab/adapter"
TUNED = ("lab/tuned-1", "lab/tuned-2", "lab/tuned-3")

Recipe = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with run_hub() as server:
        yield server


class Lab:
    """A Hub with a family of models and an adapter, and a user who has none of them.

    Attributes:
        server: the Hub.
        shop: the models.
        work: the user's working directory.
        cache: the user's cache.
        temporary: where temporary folders are made.
    """

    def __init__(self, server: HubServer, shop: Workshop):
        self.server, self.shop = server, shop
        self.work, self.cache = shop.folder / "work", shop.folder / "cache"
        self.temporary = shop.folder / "temporary"
        for folder in (self.work, self.cache, self.temporary):
            folder.mkdir()
        server.repositories.clear()
        server.served.clear()
        server.leaked.clear()
        server.status, server.has_ranges = None, True
        for name, path in zip((BASE, *TUNED), (shop.family.base, *shop.family.tuned), strict=True):
            server.add(name, path)
        server.add(ADAPTER, shop.adapter)

    def check(self, recipe: Recipe, hub: bool = True, **options: Any) -> Report:
        path = self.work / "recipe.yml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        given = MergeOptions(write_model_card=False, **options)
        return check(path, self.work, given, hub=hub)

    def check_copies(self, recipe: Recipe, **options: Any) -> Report:
        """Check a recipe on copies in local folders, without the Hub."""
        for name, repository in self.server.repositories.items():
            shutil.copytree(repository.revisions["main"], self.work / name)
        report = self.check(recipe, hub=False, **options)
        shutil.rmtree(self.work / "lab")
        return report

    def store(self, name: str) -> Path:
        """Copy a repository into the user's cache, under the Hub's commit; return the snapshot."""
        commit = self.server.repositories[name].commit("main")
        place = self.cache / f"models--{name.replace('/', '--')}"
        shutil.copytree(
            self.server.repositories[name].revisions["main"], place / "snapshots" / commit
        )
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(commit)
        return place / "snapshots" / commit

    def read_weights(self) -> dict[str, int]:
        """Return the bytes that were served of files with weights."""
        served = self.server.served.items()
        return {name: n for name, n in served if name.endswith((".safetensors", ".bin"))}

    def headers(self, name: str) -> dict[str, int]:
        """Return the sizes of the headers of a repository's files with weights."""
        files = self.server.repositories[name].revisions["main"].glob("*.safetensors")
        return {f"{name}/{file.name}": header_size(file) for file in files}


@pytest.fixture
def lab(server: HubServer, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(server, workshop)
    use_hub(server.url, lab.cache, monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(lab.temporary))
    monkeypatch.chdir(lab.work)
    return lab


def header_size(file: Path) -> int:
    with file.open("rb") as opened:
        return 8 + int.from_bytes(opened.read(8), "little")


def dense(method: str = "drm", *models: str, **more: Any) -> Recipe:
    named = [{"model": name} for name in models or TUNED]
    return {"merge_method": method, "base_model": BASE, "models": named, **more}


def of_adapter(method: str = "drm", adapter: str = ADAPTER) -> Recipe:
    return dense(method, f"{BASE}+{adapter}")


def comparable(report: Report) -> Report:
    """Leave out what depends on the moment, and what only the Hub says."""
    costs = report.costs
    if costs is not None:
        memory = replace(costs.memory, host=costs.memory.mapped)
        costs = replace(costs, seconds=0.0, startup_seconds=0.0, free_bytes=0, memory=memory)
    return replace(report, costs=costs, downloads=None)


def sharded(lab: Lab) -> Recipe:
    folder = lab.shop.folder / "sharded"
    checkpoints.fine_tuned(checkpoints.llama(), 9).save_pretrained(folder, max_shard_size="20KB")
    lab.server.add("lab/sharded", folder)
    return dense("drm", *TUNED, "lab/sharded")


def larger(lab: Lab) -> Recipe:
    checkpoints.llama(vocab_size=40).save_pretrained(lab.shop.folder / "larger")
    lab.server.add("lab/larger", lab.shop.folder / "larger")
    return dense("drm", *TUNED, "lab/larger")


def incomplete(lab: Lab) -> Recipe:
    copy = lab.shop.copied(lab.shop.family.tuned[0])
    tensors = checkpoints.tensors(copy)
    del tensors["model.norm.weight"]
    checkpoints.write_tensors(copy, tensors)
    lab.server.add("lab/incomplete", copy)
    return dense("drm", *TUNED, "lab/incomplete")


def half_uploaded(lab: Lab) -> Recipe:
    recipe = sharded(lab)
    folder = lab.shop.folder / "sharded"
    removed(folder, sorted(file.name for file in folder.glob("*.safetensors"))[1])
    return recipe


def of_opt(lab: Lab) -> Recipe:
    """An architecture that mergekit has to infer."""
    family = checkpoints.write_family(lab.shop.folder / "opt", checkpoints.opt(), count=1)
    checkpoints.write_tokenizer(family.base)
    lab.server.add("lab/opt", family.base)
    lab.server.add("lab/opt-tuned", family.tuned[0])
    return {**dense("drm", "lab/opt-tuned"), "base_model": "lab/opt"}


def foreign_adapter(lab: Lab) -> Recipe:
    folder = lab.shop.folder / "foreign"
    checkpoints.write_adapter(folder, checkpoints.llama(hidden_size=64), 1, ["q_proj"])
    lab.server.add("lab/foreign", folder)
    return of_adapter(adapter="lab/foreign")


def with_token(token: str) -> Callable[[Lab], Recipe]:
    tokens = {token: {"source": TUNED[0]}}
    return lambda _: dense("drm", tokenizer={"source": "base", "tokens": tokens})


RECIPES: dict[str, tuple[Callable[[Lab], Recipe], str | None]] = {
    "full fine-tunes": (lambda _: dense(), None),
    "a method of mergekit": (lambda _: dense("ties", parameters={"weight": 1.0}), None),
    "an adapter": (lambda _: of_adapter(), None),
    "an adapter that is copied": (lambda _: of_adapter("ties"), "needs --lora-merge-cache"),
    "shards": (sharded, None),
    "an inferred architecture": (of_opt, None),
    "another vocabulary": (larger, "vocabular"),
    "a missing tensor": (incomplete, "model.norm.weight"),
    "a missing shard": (half_uploaded, "which its index names"),
    "an adapter of another model": (foreign_adapter, "that the adapter was trained on"),
    "an adapter as a model": (lambda _: dense("drm", ADAPTER), "is an adapter; write it after"),
    "a parameter": (lambda _: dense(parameters={"densty": 0.5}), "densty"),
    "a token": (with_token("a"), None),
    "an unknown token": (with_token("<none>"), "whose tokenizer has no '<none>'"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_findings_are_those_of_local_copies(name: str, lab: Lab):
    make, message = RECIPES[name]
    recipe = make(lab)
    report, local = lab.check(recipe), lab.check_copies(recipe)
    assert comparable(report) == comparable(local)
    assert any(message in f.message for f in report.findings) if message else not report.findings


@pytest.mark.parametrize("make", [lambda _: dense(), lambda _: of_adapter(), sharded])
def test_only_headers_of_weights_are_downloaded(make: Callable[[Lab], Recipe], lab: Lab):
    lab.check(make(lab))
    read = lab.read_weights()
    names = {name.rsplit("/", 1)[0] for name in read}
    assert read == {k: v for name in names for k, v in lab.headers(name).items()}
    assert BASE in names
    assert lab.server.leaked == []


def test_nothing_is_left_behind(lab: Lab):
    lab.check(dense())
    lab.check(dense("drm", "lab/nowhere"))
    lab.server.status = 503
    lab.check(dense())
    assert list(lab.temporary.iterdir()) == []
    assert list(lab.cache.iterdir()) == []
    assert str(lab.cache) == huggingface_hub.constants.HF_HUB_CACHE
    assert not huggingface_hub.is_offline_mode()


def test_downloads_are_what_mergekit_downloads(lab: Lab):
    copy = lab.shop.copied(lab.shop.family.tuned[0])
    (copy / "fp16").mkdir()
    shutil.copy(lab.shop.family.tuned[1] / "model.safetensors", copy / "fp16")
    (copy / "README.md").write_text("A model.")
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    lab.server.add(TUNED[0], copy)
    report = lab.check(dense("drm", *TUNED[:2]))
    assert report.downloads is not None
    assert list(report.downloads) == [BASE, *TUNED[:2]]
    assert report.downloads[TUNED[0]] > report.downloads[TUNED[1]]
    for name, size in report.downloads.items():
        folder = Path(ModelReference.parse(name).local_path(cache_dir=str(lab.cache)))
        assert size == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert lab.check(dense("drm", *TUNED[:2])).downloads == {}


def test_what_mergekit_downloaded_is_on_this_machine(lab: Lab):
    """Also if the client knows that other files, such as README.md, were not downloaded."""
    copy = lab.shop.copied(lab.shop.family.base)
    (copy / "README.md").write_text("A model.")
    lab.server.add(BASE, copy)
    for name in (BASE, *TUNED):
        ModelReference.parse(name).local_path()
    lab.server.served.clear()
    for asked in (False, True):
        report = lab.check(dense(), hub=asked)
        assert report.findings == ()
        assert report.costs is not None
    assert not lab.server.served


def test_files_that_were_downloaded_are_not_counted(lab: Lab):
    whole = lab.check(dense()).downloads
    config = ModelReference.parse(BASE).config()
    assert config.architectures == ["LlamaForCausalLM"]
    report = lab.check(dense())
    assert whole is not None
    assert report.downloads is not None
    assert whole[BASE] - report.downloads[BASE] == (
        (lab.shop.family.base / "config.json").stat().st_size
    )
    assert report.costs is not None


def test_local_folders_and_the_cache_are_used(lab: Lab):
    shutil.copytree(lab.shop.family.base, BASE)
    hub.store(lab.cache, TUNED[0], "main", lab.shop.family.tuned[0])
    report = lab.check(dense())
    assert report.downloads is not None
    assert list(report.downloads) == [*TUNED[1:]]
    assert report.findings == ()
    assert report.costs is not None
    assert not any(name.startswith((BASE, TUNED[0])) for name in lab.server.served)


def test_a_repository_with_a_model_and_an_adapter_of_which_one_is_in_the_cache(lab: Lab):
    both = lab.shop.copied(lab.shop.family.tuned[0])
    lab.server.add("lab/both", both)
    snapshot = lab.store("lab/both")
    shutil.copytree(lab.shop.adapter, both, dirs_exist_ok=True)
    before = sorted(lab.cache.rglob("*"))
    report = lab.check(dense("drm", "lab/both@main", f"{BASE}+lab/both"))
    assert report.findings == ()
    assert report.costs is not None
    assert sorted(lab.cache.rglob("*")) == before
    assert not (snapshot / "adapter_model.safetensors").exists()


def test_revisions(lab: Lab):
    """Of one repository: one on the Hub, one in the cache, and a tag of the latter's commit."""
    lab.server.add(TUNED[0], lab.shop.family.tuned[1], "v2")
    lab.server.repositories[TUNED[0]].revisions["stable"] = lab.shop.family.tuned[0]
    lab.store(TUNED[0])
    names = [TUNED[0], f"{TUNED[0]}@v2", TUNED[1]]
    report = lab.check(dense("drm", *names))
    assert report.downloads is not None
    assert list(report.downloads) == [BASE, *names[1:]]
    assert not report.failed
    assert report.costs is not None
    report = lab.check(dense("drm", *TUNED, f"{TUNED[0]}@stable"))
    assert [f.message for f in report.findings] == [
        f"{TUNED[0]}@stable seems to have the same weights as {TUNED[0]}, so these count twice."
    ]


def test_revisions_of_a_base_and_an_adapter(lab: Lab):
    lab.server.add(BASE, lab.shop.family.base, "v2")
    lab.server.add(ADAPTER, lab.shop.adapter, "refs/pr/1")
    name = f"{BASE}@v2+{ADAPTER}@refs/pr/1"
    report = lab.check({**dense("drm", name), "base_model": f"{BASE}@v2"})
    assert report.findings == ()
    assert report.costs is not None
    assert report.downloads is not None
    assert list(report.downloads) == [f"{BASE}@v2", f"{ADAPTER}@refs/pr/1"]
    files = ("adapter_config.json", "adapter_model.safetensors")
    sizes = [(lab.shop.adapter / file).stat().st_size for file in files]
    assert report.downloads[f"{ADAPTER}@refs/pr/1"] == sum(sizes)


def test_values_in_the_cache_are_compared(lab: Lab):
    for name in TUNED[:2]:
        hub.store(lab.cache, name, "main", lab.shop.family.tuned[0])
    (found,) = lab.check(dense()).findings
    assert found.message.startswith(f"{TUNED[1]} seems to have the same weights as {TUNED[0]}")


def test_a_commit(lab: Lab):
    commit = lab.server.repositories[TUNED[0]].commit("main")
    report = lab.check(dense("drm", f"{TUNED[0]}@{commit}"))
    assert report.findings == ()
    assert report.costs is not None


def test_files_of_two_revisions_count_once(lab: Lab):
    lab.server.add(TUNED[0], lab.shop.family.tuned[0], "v2")
    report = lab.check(dense("drm", TUNED[0], f"{TUNED[0]}@v2"))
    assert report.downloads is not None
    assert report.downloads[f"{TUNED[0]}@v2"] == 0
    assert [f.message.split(" seems")[0] for f in report.findings] == [f"{TUNED[0]}@v2"]


def test_values_that_are_not_here_are_not_compared(lab: Lab):
    """A buffer that differs, and a model that is a copy: nothing is known of either."""
    name = "model.norm.weight"
    for number, of in enumerate((BASE, *TUNED)):
        copy = lab.shop.copied(lab.server.repositories[of].revisions["main"])
        buffer = torch.arange(32) + number
        checkpoints.write_tensors(copy, {**checkpoints.tensors(copy), name: buffer})
        lab.server.add(of, copy)
    lab.server.add("lab/copy", lab.server.repositories[TUNED[0]].revisions["main"])
    recipe = dense("drm", *TUNED, "lab/copy")
    assert lab.check(recipe).findings == ()
    assert len(lab.check_copies(recipe).findings) > 1
    # A local model is not compared to what is on the Hub.
    shutil.copytree(lab.server.repositories[TUNED[0]].revisions["main"], TUNED[0])
    assert lab.check(recipe).findings == ()


def test_a_tokenizer_of_another_model(lab: Lab):
    recipe = dense(tokenizer={"source": "lab/tokenizer"})
    folder = lab.shop.folder / "tokenizer"
    shutil.copytree(lab.shop.family.base, folder)
    lab.server.add("lab/tokenizer", folder)
    report = lab.check(recipe)
    assert report.findings == ()
    assert report.downloads is not None
    sizes = [file.stat().st_size for file in folder.glob("tokenizer*")]
    assert report.downloads["lab/tokenizer"] == sum(sizes)
    assert "lab/tokenizer/model.safetensors" not in lab.server.served
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (found,) = lab.check(recipe).errors
    assert "lab/tokenizer has no tokenizer" in found.message


def unreadable(message: str, lab: Lab, name: str = TUNED[0], severity: str = "error") -> Report:
    """Check a recipe with one model that cannot be read, and require one finding."""
    report = lab.check(dense("drm", *TUNED[1:], name))
    (found,) = report.findings
    assert message in found.message
    assert "\n" not in found.message
    assert (found.severity, found.line) == (severity, 6)
    assert report.failed == (severity == "error")
    assert report.costs is None
    return report


def test_a_repository_that_is_not_there(lab: Lab):
    unreadable("lab/nowhere is not a local folder (working directory ", lab, "lab/nowhere")
    shutil.copytree(lab.shop.family.base, lab.work / "else" / "where" / "model")
    path = lab.work / "else" / "recipe.yml"
    path.write_text(yaml.safe_dump(dense("drm", "where/model")))
    (found,) = check(path, lab.work, hub=True).findings
    assert f"it is in the folder of the recipe, so run mergekit in {path.parent}" in found.message


def test_a_revision_that_is_not_there(lab: Lab):
    lab.server.add(TUNED[0], lab.shop.family.tuned[0], "v1.0")
    unreadable("has no revision v1.1 on the Hub; did you mean v1.0?", lab, f"{TUNED[0]}@v1.1")


@pytest.mark.parametrize("token", [None, "wrong", "right"])
def test_a_private_repository(token: str | None, lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.server.repositories[TUNED[0]].token = "right"
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    if token == "right":
        report = lab.check(dense())
        assert report.findings == ()
        assert report.costs is not None
    else:
        unreadable("correct the name or, if it is private, set HF_TOKEN", lab)
    assert lab.server.leaked == []


def test_an_expired_token(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "expired")
    (found, *_) = lab.check(dense()).findings
    assert f"denies access to Model {BASE} (status 401); set HF_TOKEN" in found.message


def test_a_gated_repository(lab: Lab):
    lab.server.repositories[TUNED[0]].gated = True
    report = unreadable("is restricted on the Hub; ask for it at", lab)
    assert report.downloads is not None
    assert report.downloads[TUNED[0]] > 0


def test_weights_in_pickles(lab: Lab):
    copy = removed(lab.shop.copied(lab.shop.family.tuned[0]), "model.safetensors")
    torch.save({}, copy / "pytorch_model.bin")
    lab.server.add(TUNED[0], copy)
    report = unreadable("only has pytorch_model.bin on the Hub", lab, severity="warning")
    assert report.unchecked == "until all models are local"
    assert report.downloads is not None
    assert report.downloads[TUNED[0]] > (copy / "pytorch_model.bin").stat().st_size
    assert not any(name.endswith(".bin") for name in lab.server.served)


def test_an_adapter_in_a_pickle(lab: Lab):
    copy = removed(lab.shop.copied(lab.shop.adapter), "adapter_model.safetensors")
    torch.save({}, copy / "adapter_model.bin")
    lab.server.add(ADAPTER, copy)
    (found,) = lab.check(of_adapter()).findings
    assert found.severity == "warning"
    assert f"Adapter {ADAPTER} only has adapter_model.bin on the Hub" in found.message


def test_weights_in_another_format(lab: Lab):
    copy = removed(lab.shop.copied(lab.shop.family.tuned[0]), "model.safetensors")
    (copy / "model-q4.gguf").write_bytes(b"GGUF")
    lab.server.add(TUNED[0], copy)
    unreadable("has no weights that mergekit reads on the Hub; .gguf files are not read", lab)


def test_a_damaged_file(lab: Lab):
    lab.server.add(TUNED[0], truncated(lab.shop.copied(lab.shop.family.tuned[0])))
    unreadable("the header of a file with its weights cannot be read", lab)
    for content in (b"", b"short", b"\xff" * 100):
        copy = lab.server.repositories[TUNED[0]].revisions["main"]
        (copy / "model.safetensors").write_bytes(content)
        (found,) = lab.check(dense()).errors
        assert f"Model {TUNED[0]}" in found.message


def test_a_model_without_a_config(lab: Lab):
    lab.server.add(TUNED[0], removed(lab.shop.copied(lab.shop.family.tuned[0]), "config.json"))
    unreadable("has no config.json", lab)


def test_files_outside_of_the_repository_are_not_written(lab: Lab):
    lab.server.repositories[TUNED[0]].more_files = ("../../../out.safetensors", "/out.safetensors")
    copy = lab.shop.copied(lab.shop.family.tuned[0])
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../../../out.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    lab.server.add(TUNED[0], copy)
    unreadable("lacks out.safetensors, which its index names", lab)
    assert not any("out.safetensors" in name for name in lab.server.served)


def test_a_hub_that_is_busy(lab: Lab):
    lab.server.status = 503
    (found, *more) = lab.check(dense()).findings
    assert found.severity == "warning"
    assert f"cannot be read on the Hub ({lab.server.url}), which answers with status 503" in (
        found.message
    )
    assert len(more) == 3


def test_a_hub_that_cannot_be_reached(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    use_hub("http://localhost:9", lab.cache, monkeypatch)
    with pytest.raises(MergeError, match=r"The Hub \(http://localhost:9\) cannot be reached \("):
        lab.check(dense())


def test_a_server_without_parts_of_files(lab: Lab):
    lab.server.has_ranges = False
    with pytest.raises(MergeError, match=r"model\.safetensors cannot be read in part"):
        lab.check(dense())


def test_a_client_that_is_offline(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MergeError, match="HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"):
        lab.check(dense())


def test_a_temporary_folder_that_is_full(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(MergeError, match=r"cannot hold the headers of Model .* set TMPDIR"):
            lab.check(dense())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("trusted", [False, True])
def test_code_of_models_is_only_downloaded_where_it_is_trusted(trusted: bool, lab: Lab):
    copy = lab.shop.copied(lab.shop.family.tuned[0])
    (copy / "modeling.py").write_text("pass")
    lab.server.add(TUNED[0], copy)
    lab.check(dense(), trust_remote_code=trusted)
    assert (f"{TUNED[0]}/modeling.py" in lab.server.served) == trusted


def test_downloads_need_room(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    disk_usage = shutil.disk_usage

    def almost_full(path: Path) -> Any:
        usage = disk_usage(path)
        return usage._replace(free=1000) if Path(path) in (lab.work, lab.cache) else usage

    monkeypatch.setattr(shutil, "disk_usage", almost_full)
    (found,) = lab.check(dense()).errors
    assert found.message.startswith("downloads and the merged model take ")
    lab.server.repositories[TUNED[0]].gated = True
    messages = [found.message for found in lab.check(dense()).errors]
    assert any(message.startswith("downloads take ") for message in messages)


def test_the_command_asks_the_hub_of_the_environment(lab: Lab):
    recipe = lab.work / "recipe.yml"
    recipe.write_text(yaml.safe_dump(dense(), sort_keys=False))
    own = {"HF_ENDPOINT": lab.server.url, "HF_HOME": str(lab.cache), "TMPDIR": str(lab.temporary)}
    unset = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN")
    environment = {k: v for k, v in {**os.environ, **own}.items() if k not in unset}
    command = [sys.executable, "-m", "mergekit_spectral", "check", "--hub"]
    done = subprocess.run(
        [*command, recipe], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == f"{recipe}: runs."
    assert lines[-2].startswith(f"{recipe}: downloads ")
    assert all(f" MB for {name}" in lines[-2] for name in (BASE, *TUNED))
    assert list(lab.temporary.iterdir()) == []


def test_the_command_prints_downloads(lab: Lab):
    lab.server.repositories[TUNED[0]].gated = True
    recipe = lab.work / "recipe.yml"
    recipe.write_text(yaml.safe_dump(dense(), sort_keys=False))
    done = CliRunner().invoke(main, ["check", "--hub", str(recipe)])
    assert done.exit_code == 1
    assert f"{recipe}: downloads 0.4 MB: 0.1 MB for {BASE}, " in done.stdout
    report = json.loads(CliRunner().invoke(main, ["check", "--hub", "--json", str(recipe)]).stdout)
    assert list(report["downloads"]) == [BASE, *TUNED]
    for name in (BASE, *TUNED):
        lab.server.repositories[name].gated = False
        ModelReference.parse(name).local_path()
    done = CliRunner().invoke(main, ["check", "--hub", str(recipe)])
    assert done.stdout.splitlines()[-2:] == [
        f"{recipe}: downloads nothing; all models are on this machine.",
        f"{recipe}: runs.",
    ]
    lab.server.status = 404
    use_nothing = CliRunner().invoke(main, ["check", str(recipe), "--json"])
    assert json.loads(use_nothing.stdout)["downloads"] is None


def test_run_downloads_what_is_absent(lab: Lab):
    path, said = lab.work / "recipe.yml", list[str]()
    path.write_text(yaml.safe_dump(of_adapter()))
    options = MergeOptions(write_model_card=False, copy_tokenizer=False, quiet=True)
    merge(path, lab.work / "merged", options, workers=1, say=said.append)
    assert f"downloading {BASE}" in said
    assert f"downloading {ADAPTER}" in said
    assert (lab.work / "merged" / "model.safetensors").exists()
    said.clear()
    merge(path, lab.work / "again", options, workers=1, say=said.append)
    assert not any(sentence.startswith("downloading") for sentence in said)


def test_run_downloads_nothing_for_a_wrong_recipe(lab: Lab):
    path = lab.work / "recipe.yml"
    path.write_text(yaml.safe_dump(dense(parameters={"density": 2})))
    with pytest.raises(MergeError, match="`density` must be"):
        merge(path, lab.work / "merged", workers=1)
    assert not lab.server.served
