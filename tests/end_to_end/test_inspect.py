"""`mergekit-spectral inspect` on real files: its numbers, its files, and that it goes on."""

from __future__ import annotations

import json
import re
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from markupsafe import escape
from mergekit.options import MergeOptions
from safetensors.torch import load, load_file, save_file
from support import checkpoints, hub
from support.by_peft import merged_by_peft
from support.checkpoints import Family
from support.interrupted import command_on_a_full_disk, killed_at
from support.recipe_builders import recipe as plain_recipe
from torch import Tensor

from mergekit_spectral.command_line.main import main
from mergekit_spectral.errors import MergeError
from mergekit_spectral.inspecting import inspection as module
from mergekit_spectral.inspecting import plots
from mergekit_spectral.inspecting.inspection import Inspection, measure
from mergekit_spectral.inspecting.weights import ETAS, WeightReport
from mergekit_spectral.reporting.plots import Plot

PNG = b"\x89PNG"
WEIGHT = "model.layers.1.mlp.down_proj.weight"


def write(recipe: dict[str, Any], folder: Path) -> Path:
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def looked_at(recipe: dict[str, Any], folder: Path, **choice: Any) -> Inspection:
    choice = {"pattern": None, "sample": None, "progress": lambda done, of: None, **choice}
    _, found = measure(write(recipe, folder), folder / "report", MergeOptions(), **choice)
    return found


def weight_called(inspection: Inspection, name: str) -> WeightReport:
    return next(weight for weight in inspection.weights if weight.name == name)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A base and two adapters on it."""
    folder = tmp_path_factory.mktemp("lora")
    base = checkpoints.llama()
    base.save_pretrained(folder / "base")
    for seed in (1, 2):
        targets = ["q_proj", "down_proj"]
        checkpoints.write_adapter(folder / f"adapter-{seed}", base, seed, targets, rank=3)
    return Family(folder / "base", (folder / "adapter-1", folder / "adapter-2"))


def lora_recipe(lora: Family, method: str = "knots_ties") -> dict[str, Any]:
    models = [{"model": f"{lora.base}+{path}"} for path in lora.tuned]
    return {**plain_recipe(method, lora), "models": models}


@pytest.fixture(scope="module")
def adapted(lora: Family) -> dict[Path, dict[str, Tensor]]:
    """What peft makes of the adapters."""
    return {path: merged_by_peft(lora.base, path) for path in lora.tuned}


def differences(base: Path, tuned: list[dict[str, Tensor]], name: str) -> list[Tensor]:
    before = checkpoints.tensors(base)[name].double()
    return [after[name].double() - before for after in tuned]


def assert_described(weight: WeightReport, deltas: list[Tensor], rank: int) -> None:
    """Compare with plain decompositions in float64."""
    assert weight.norms == pytest.approx([float(d.norm()) for d in deltas], rel=1e-3)
    for t, delta in enumerate(deltas):
        s = torch.linalg.svdvals(delta)[:rank]
        shares = s / s.sum()
        assert weight.spectra[t] == pytest.approx((s / s[0]).tolist(), rel=2e-3, abs=1e-4)
        entropy = float(-(shares * shares.log()).sum())
        assert weight.effective_ranks[t] == pytest.approx(torch.e**entropy, abs=0.02)
        assert weight.stable_ranks[t] == pytest.approx(float((s**2).sum() / s[0] ** 2), abs=0.01)
        for eta in ETAS:
            reached = (s.cumsum(0) / s.sum() >= eta / 100).nonzero()[0]
            assert weight.kept_ranks[eta][t] == int(reached) + 1
    for i, j in combinations(range(len(deltas)), 2):
        one, other = deltas[i].flatten(), deltas[j].flatten()
        cosine = float(one @ other / (one.norm() * other.norm()))
        assert weight.cosines[i][j] == weight.cosines[j][i] == pytest.approx(cosine, abs=2e-3)
        same = float((one.sign() == other.sign()).double().mean())
        assert weight.agreement[i][j] == pytest.approx(same, abs=2e-3)


def test_full_fine_tunes(llama: Family, tmp_path: Path):
    found = looked_at(plain_recipe("ties", llama, weight=1.0), tmp_path)
    assert (found.lora, found.left_out, found.unchanged) == (False, (), ())
    assert found.inputs == tuple(map(str, llama.tuned))
    names = {weight.name for weight in found.weights}
    tensors = checkpoints.tensors(llama.base)
    assert names == {name for name in tensors if name.endswith("_proj.weight")}
    assert {o.name for o in found.others} == tensors.keys() - names
    weight = weight_called(found, WEIGHT)
    deltas = differences(llama.base, [checkpoints.tensors(path) for path in llama.tuned], WEIGHT)
    assert_described(weight, deltas, rank=min(deltas[0].shape))
    base = float(tensors[WEIGHT].double().norm())
    expected = [float(delta.norm()) / base for delta in deltas]
    assert weight.relative_norms == pytest.approx(expected, rel=1e-3)


def test_adapters(lora: Family, adapted: dict[Path, dict[str, Tensor]], tmp_path: Path):
    found = looked_at(lora_recipe(lora), tmp_path)
    assert found.lora
    assert found.others == ()
    weight = weight_called(found, WEIGHT)
    deltas = differences(lora.base, [adapted[path] for path in lora.tuned], WEIGHT)
    assert_described(weight, deltas, rank=3)
    assert weight.relative_norms is None
    assert weight.directions == 6
    assert sum(weight.norm_shares) == pytest.approx(1, abs=1e-3)
    untouched = checkpoints.tensors(lora.base).keys() - {w.name for w in found.weights}
    assert set(found.unchanged) == untouched


def test_overlaps_are_those_of_the_subspaces(tmp_path: Path):
    """Two adapters that share B share the output side; by A nothing."""
    base = checkpoints.llama()
    base.save_pretrained(tmp_path / "base")
    for seed in (1, 2):
        checkpoints.write_adapter(tmp_path / str(seed), base, seed, ["v_proj"], rank=2)
    first, second = (tmp_path / str(seed) / "adapter_model.safetensors" for seed in (1, 2))
    ours, theirs = load_file(first), load(second.read_bytes())
    shared = {k: (v if ".lora_B." in k else theirs[k]) for k, v in ours.items()}
    save_file(shared, second, metadata={"format": "pt"})
    found = looked_at(
        lora_recipe(Family(tmp_path / "base", (tmp_path / "1", tmp_path / "2"))), tmp_path
    )
    for weight in found.weights:
        assert weight.overlap_out[0][1] == pytest.approx(1, abs=1e-3)
        name = weight.name.removesuffix(".weight")
        rows = [f[f"base_model.model.{name}.lora_A.weight"].double() for f in (ours, theirs)]
        Q, P = (torch.linalg.qr(A.T).Q for A in rows)
        expected = float((Q.T @ P).square().sum()) / 2
        assert weight.overlap_in[0][1] == pytest.approx(expected, abs=2e-3)


def test_tensors_are_chosen(llama: Family, tmp_path: Path):
    recipe = plain_recipe("drm", llama)
    chosen = looked_at(recipe, tmp_path, pattern="*.mlp.*", sample=2)
    names = {weight.name for weight in chosen.weights}
    kinds = ("gate_proj", "up_proj", "down_proj")
    assert names == {f"model.layers.{i}.mlp.{k}.weight" for i in (0, 2) for k in kinds}
    assert len(chosen.left_out) == len(checkpoints.tensors(llama.base)) - 6
    assert not any(each.why for each in chosen.left_out)
    with pytest.raises(MergeError, match="and its name must match xyz"):
        looked_at(recipe, tmp_path, pattern="xyz")


def test_an_inspection_that_was_stopped_goes_on(
    llama: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = plain_recipe("drm", llama)
    whole = looked_at(recipe, tmp_path)
    record = tmp_path / "report" / "tensors.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:5]) + lines[5][:20])  # stopped while it wrote
    read = counted(monkeypatch)
    assert looked_at(recipe, tmp_path) == whole
    assert len(read) == len(checkpoints.tensors(llama.base)) - 5
    read.clear()
    looked_at(plain_recipe("star", llama), tmp_path)  # another recipe begins anew
    assert len(read) == len(checkpoints.tensors(llama.base))


def test_an_adapter_of_another_scale_is_looked_at_again(tmp_path: Path):
    base = checkpoints.llama()
    base.save_pretrained(tmp_path / "base")
    checkpoints.write_adapter(tmp_path / "adapter", base, 1, ["q_proj"])
    recipe = lora_recipe(Family(tmp_path / "base", (tmp_path / "adapter",)))
    before = looked_at(recipe, tmp_path).weights[0].norms[0]
    config = tmp_path / "adapter" / "adapter_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "lora_alpha": 10 * values["lora_alpha"]}))
    after = looked_at(recipe, tmp_path).weights[0].norms[0]
    assert after == pytest.approx(10 * before, rel=1e-3)


def test_models_of_the_hub(llama: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, path in (("base", llama.base), ("tuned", llama.tuned[0])):
        hub.store(tmp_path / "hub", f"lab/{name}", "main", path)
    recipe = {"merge_method": "drm", "base_model": "lab/base", "models": [{"model": "lab/tuned"}]}
    by_id = looked_at(recipe, tmp_path)
    family = Family(llama.base, llama.tuned[:1])
    assert by_id.weights == looked_at(plain_recipe("drm", family), tmp_path).weights


@pytest.mark.parametrize("method", ["ties", "drm"])
def test_adapters_under_any_method(
    method: str, lora: Family, adapted: dict[Path, dict[str, Tensor]], tmp_path: Path
):
    """Also where mergekit would merge copies first."""
    recipe = lora_recipe(lora, method)
    for model in recipe["models"]:
        model["parameters"] = {"weight": 1.0}
    found = looked_at(recipe, tmp_path)
    weight = weight_called(found, WEIGHT)
    deltas = differences(lora.base, [adapted[path] for path in lora.tuned], WEIGHT)
    assert weight.norms == pytest.approx([float(d.norm()) for d in deltas], rel=1e-3)


def test_adapters_on_other_weights(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    base = checkpoints.llama()
    base.save_pretrained(tmp_path / "base")
    for seed, target in ((1, "q_proj"), (2, "v_proj")):
        checkpoints.write_adapter(tmp_path / str(seed), base, seed, [target])
    family = Family(tmp_path / "base", (tmp_path / "1", tmp_path / "2"))
    result = run(write(lora_recipe(family), tmp_path), "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    report = (tmp_path / "report" / "report.json").read_text()
    assert "all inputs change 0, and only one input changes 6" in report
    assert "nan" not in result.output
    assert "Warning" not in result.output
    assert not list((tmp_path / "report").glob("pairs*.png"))
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_experts_are_compared_to_their_own_base(tmp_path: Path):
    family = checkpoints.write_family(tmp_path, checkpoints.mixtral(), count=1)
    tensors = checkpoints.tensors(family.base)
    name = "model.layers.0.mlp.experts.down_proj"
    found = looked_at(plain_recipe("drm", family), tmp_path, pattern="*experts.down_proj*")
    after = checkpoints.tensors(family.tuned[0])
    for number in range(4):
        weight = weight_called(found, f"{name}[{number}]")
        before = tensors[name][number].double()
        expected = float((after[name][number].double() - before).norm() / before.norm())
        assert weight.relative_norms == (pytest.approx(expected, rel=1e-3),)


def test_slices_of_other_models(llama: Family, tmp_path: Path):
    def part(tuned: Path, layers: list[int]) -> dict[str, Any]:
        return {"sources": [{"model": str(m), "layer_range": layers} for m in (llama.base, tuned)]}

    recipe = {
        "merge_method": "drm",
        "base_model": str(llama.base),
        "slices": [part(llama.tuned[0], [0, 2]), part(llama.tuned[1], [2, 3])],
    }
    found = looked_at(recipe, tmp_path)
    assert found.left_out == ()
    norms = {w.name: [norm is not None for norm in w.norms] for w in found.weights}
    assert norms["model.layers.0.mlp.up_proj.weight"] == [True, False]
    assert norms["model.layers.2.mlp.up_proj.weight"] == [False, True]


def test_tensors_that_cannot_be_compared_are_named(tmp_path: Path):
    family = checkpoints.write_family(tmp_path, checkpoints.granite(), count=2)
    bias = "model.layers.0.self_attn.q_proj.bias"
    with_bias = {**checkpoints.tensors(family.base), bias: torch.ones(32)}
    checkpoints.write_tensors(family.base, with_bias)
    found = looked_at(plain_recipe("drm", family), tmp_path)
    assert [(each.name, each.why) for each in found.left_out] == [
        (bias, "not merged from any input")
    ]
    result = run(tmp_path / "recipe.yml", "--out", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert result.exit_code == 0
    assert f"not inspected: {bias} (not merged from any input)" in page


@pytest.mark.parametrize(
    "damage",
    [
        b"{}",
        b"[]",
        b"\xff\xfe\x00",
        b'["x", {"name": 1}]',
        b"[" * 10000,
        b"\xe2\x80\xa8",
        b"null\x00",
    ],
    ids=repr,
)
def test_damaged_lines_of_a_record_are_looked_at_again(
    damage: bytes, llama: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = plain_recipe("drm", llama)
    whole = looked_at(recipe, tmp_path)
    record = tmp_path / "report" / "tensors.jsonl"
    before = record.read_bytes()
    lines = before.splitlines()
    record.write_bytes(b"\n".join([lines[0], damage, *lines[2:5], damage + lines[5], *lines[6:]]))
    read = counted(monkeypatch)
    assert looked_at(recipe, tmp_path) == whole
    assert len(read) == 2
    assert sorted(record.read_bytes().splitlines()) == sorted(lines)


def test_records_of_two_inspections_at_once(
    llama: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Lines of another recipe are not taken, and double ones are dropped."""
    one, other = (
        plain_recipe("drm", llama),
        plain_recipe("drm", Family(llama.base, llama.tuned[:1])),
    )
    whole = looked_at(one, tmp_path)
    record = tmp_path / "report" / "tensors.jsonl"
    ours = record.read_bytes()
    looked_at(other, tmp_path)
    theirs = record.read_bytes()
    assert ours.splitlines()[0] != theirs.splitlines()[0]
    record.write_bytes(ours + ours + theirs)
    read = counted(monkeypatch)
    assert looked_at(one, tmp_path) == whole
    assert read == []
    assert record.read_bytes() == ours


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the name of each tensor that is read."""
    read: list[str] = []
    original = module.read_updates
    monkeypatch.setattr(
        module,
        "read_updates",
        lambda tensor, inputs: read.append(tensor.name) or original(tensor, inputs),
    )
    return read


def assert_refused(result: Any, message: str) -> None:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_record_that_is_a_folder(llama: Family, tmp_path: Path):
    record = tmp_path / "report" / "tensors.jsonl"
    record.mkdir(parents=True)
    result = run(write(plain_recipe("drm", llama), tmp_path), "--out", tmp_path / "report")
    assert_refused(result, f"{record} is not a file, so the inspection cannot be recorded in it")


def test_a_record_is_not_written_through_a_link(llama: Family, tmp_path: Path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "tensors.jsonl").symlink_to(tmp_path / "mine")
    looked_at(plain_recipe("drm", llama), tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["file/report", "n" * 300, "/proc/self/report"])
def test_folders_that_cannot_be_written_to(name: str, llama: Family, tmp_path: Path):
    (tmp_path / "file").write_text("")
    recipe = write(plain_recipe("drm", llama), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = run(recipe, "--out", tmp_path / name)
    assert_refused(result, f"{tmp_path / name} cannot be written to (")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(scope="module")
def reported(gentle_llama: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe and its report."""
    folder = tmp_path_factory.mktemp("reported")
    recipe = write(plain_recipe("drm", Family(gentle_llama.base, gentle_llama.tuned[:2])), folder)
    assert run(recipe, "--out", folder / "report").exit_code == 0
    return folder


@pytest.mark.parametrize("limit", [0, 4000, 40_000, 300_000])
def test_a_full_disk(limit: int, reported: Path, llama: Family, tmp_path: Path):
    """No cut plot, no cut page; what an earlier inspection wrote stays as it was."""
    out = tmp_path / "report"
    if limit > 0:
        shutil.copytree(reported / "report", out)
    before = finished(out)
    recipe = write(plain_recipe("drm", llama), tmp_path)
    status, printed = command_on_a_full_disk(limit, "inspect", str(recipe), "--out", str(out))
    assert status == 1
    assert f"Error: {out} cannot be written to (File too large)" in printed
    assert "Traceback" not in printed
    assert finished(out) == before
    assert {path.name for path in out.glob("*")} <= {"tensors.jsonl", *before}


def finished(folder: Path) -> dict[str, bytes]:
    """Return the files of a report, without the record."""
    files = [path for path in folder.glob("*") if path.is_file()]
    return {path.name: path.read_bytes() for path in files if path.name != "tensors.jsonl"}


def test_killed_at_any_moment(reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where there is a page it is whole, and so is everything that goes with it."""
    whole = finished(reported / "report")

    def copied(_inspection: Inspection) -> list[Plot]:
        """Take seconds less than drawing."""
        names = sorted(name for name in whole if name.endswith(".png"))
        return [Plot(Path(name).stem, name, "", whole[name], b"") for name in names]

    monkeypatch.setattr(plots, "draw_inspection", copied)
    pages = []
    for event in range(300):
        out = tmp_path / str(event)
        out.mkdir()
        shutil.copy(reported / "report" / "tensors.jsonl", out)
        killed = killed_at(event, out, lambda out=out: run(reported / "recipe.yml", "--out", out))
        found = finished(out)
        pages.append("index.html" in found)
        if pages[-1]:
            assert found.keys() == whole.keys()
            assert found["index.html"].endswith(b"</html>")
        assert all(found[name] == whole[name] for name in found if name != "index.html")
        assert len((out / "tensors.jsonl").read_bytes()) > 0
        if not killed:
            break
    assert not killed
    assert pages[-1]
    assert not pages[0]
    assert len(pages) > 20


@pytest.mark.parametrize("name", ["index.html", "report.json", "recommended.yml", "pairs.png"])
def test_other_files_are_not_overwritten(name: str, llama: Family, tmp_path: Path):
    out = tmp_path / "report"
    out.mkdir()
    (out / name).write_text("mine")
    result = run(write(plain_recipe("drm", llama), tmp_path), "--out", out)
    assert_refused(result, f"{out} holds {name}, which is not from an earlier inspection")
    assert [path.read_text() for path in out.iterdir()] == ["mine"]


@pytest.mark.parametrize("scale", [1e300, 1e38, 1e25])
def test_updates_beyond_float32(scale: float, lora: Family, tmp_path: Path):
    huge = tmp_path / "huge"
    shutil.copytree(lora.tuned[0], huge)
    config = json.loads((huge / "adapter_config.json").read_text())
    (huge / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": scale}))
    recipe = lora_recipe(Family(lora.base, (huge, lora.tuned[1])))
    result = run(write(recipe, tmp_path), "--out", tmp_path / "report")
    if result.exit_code == 0:
        report = (tmp_path / "report" / "report.json").read_text()
        assert "NaN" not in report
        assert "Infinity" not in report
    else:
        assert_refused(result, "Error: ")
        assert not (tmp_path / "report" / "index.html").exists()


def test_plots_of_another_recipe_are_removed(gentle_llama: Family, tmp_path: Path):
    recipe = plain_recipe("drm", gentle_llama)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "mine.png").write_text("")
    for count, there in ((2, True), (1, False)):
        own = {**recipe, "models": recipe["models"][:count]}
        assert run(write(own, tmp_path), "--out", tmp_path / "report").exit_code == 0
        assert (tmp_path / "report" / "pairs.png").exists() is there
        assert (tmp_path / "report" / "recommended.yml").exists() is there
    assert (tmp_path / "report" / "mine.png").exists()


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_the_report(kind: str, gentle_llama: Family, lora: Family, tmp_path: Path):
    recipe = plain_recipe("drm", gentle_llama) if kind == "full" else lora_recipe(lora)
    result = run(write(recipe, tmp_path), "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    page = (tmp_path / "report" / "index.html").read_text()
    pictures = sorted((tmp_path / "report").glob("*.png"))
    assert [picture.stem for picture in pictures] == [
        "balance",
        "cosines",
        "directions",
        "effective-ranks",
        "kept-ranks",
        "norm-shares",
        "pairs-by-layer",
        "pairs",
        "pruned-unrenormalized",
        "pruned",
        "sizes",
        "spectra",
        "stable-ranks",
    ]
    assert {picture.stem for picture in pictures} == set(plots.NAMES)
    assert all(picture.read_bytes().startswith(PNG) for picture in pictures)
    # Each plot has a light and a dark version.
    assert page.count("data:image/png;base64,") == 2 * len(pictures)
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", page)
    assert report["takeaways"]
    assert report["suggestions"]
    verdict = report["verdict"]
    assert result.output.lstrip().startswith(verdict["headline"])
    for answer in verdict["answers"]:
        assert f"- {answer['question']}: {answer['answer']}. {answer['reason']}" in result.output
    recommended = (tmp_path / "report" / "recommended.yml").read_text()
    assert yaml.safe_load(recommended)["merge_method"] == verdict["changes"]["method"]
    assert all(f"    {line}\n" in result.output for line in recommended.splitlines())
    for name in ("tuned-1", "tuned-2") if kind == "full" else ("adapter-1", "adapter-2"):
        assert f'<td class="words long">{name}</td>' in page.replace("<wbr>", "")
    assert escape(recommended) in page


def test_one_input(llama: Family, tmp_path: Path):
    recipe = plain_recipe("drm", llama)
    recipe = {**recipe, "models": recipe["models"][:1]}
    result = run(write(recipe, tmp_path), "--out", tmp_path / "report", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert "pairs" not in {path.stem for path in (tmp_path / "report").iterdir()}


def test_inputs_that_change_nothing(llama: Family, tmp_path: Path):
    recipe = plain_recipe("drm", Family(llama.base, (llama.base,)))
    copy = tmp_path / "copy"
    copy.symlink_to(llama.base)
    recipe = {**recipe, "models": [{"model": str(copy)}]}
    result = run(write(recipe, tmp_path), "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert "No input changes any tensor, so a merge gives the base model." in result.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merge_method": "drn"}, "there is no merge method drn; did you mean drm?"),
        ({"merge_method": "linear", "base_model": None}, "names no base model"),
    ],
)
def test_recipes_that_cannot_be_inspected(
    change: dict[str, Any], message: str, llama: Family, tmp_path: Path
):
    recipe = {**plain_recipe("drm", llama, weight=1.0), **change}
    result = run(write(recipe, tmp_path), "--out", tmp_path / "report")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "report").exists()
