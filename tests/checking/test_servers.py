"""Which servers take an adapter, for adapters that peft wrote."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml
from transformers import AutoModelForCausalLM

from mergekit_spectral.checking.servers import Serving, check_servers
from mergekit_spectral.command_line.main import main
from mergekit_spectral.errors import MergeError

TARGETS = ["q_proj", "v_proj"]
WRONG_SCALE = "it would scale "
PATTERNS = "versions before 0.32 ignore `rank_pattern` and `alpha_pattern`"

KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "plain": ({}, "", ""),
    "another alpha": ({"lora_alpha": 5}, "", ""),
    "no alpha": ({"lora_alpha": 0}, "", "such as model.layers.0.self_attn.q_proj.weight by 1 "),
    # alpha / r as in peft, because llama.cpp takes r from the factors
    "ranks": ({"rank_pattern": {"v_proj": 6}}, "", ""),
    "alphas": ({"alpha_pattern": {"v_proj": 6}}, "", "3 of 6 updates wrongly"),
    "ranks and alphas": (
        {"lora_alpha": 4, "rank_pattern": {"v_proj": 6}, "alpha_pattern": {"v_proj": 6}},
        "",
        "v_proj.weight by 0.6667 instead of 1:",
    ),
    "rsLoRA": ({"use_rslora": True}, "", WRONG_SCALE),
    "rsLoRA of rank 1": ({"use_rslora": True, "r": 1}, "", ""),
    "embeddings": ({"target_modules": ["embed_tokens", "q_proj"]}, "", ""),
    "biases": ({"lora_bias": True}, "the adapter changes biases", "the adapter changes biases"),
    "whole tensors": (
        {"modules_to_save": ["lm_head"]},
        "contains whole tensors (lm_head.weight)",
        "contains whole tensors (lm_head.weight)",
    ),
    "DoRA": ({"use_dora": True}, "uses DoRA", "uses DoRA"),
    "a rank above the limit": ({"r": 513}, "rank is 513, and vLLM's limit is 512", ""),
}
"""Settings of peft's LoraConfig, and why vLLM and llama.cpp refuse the adapter, if they do."""

NOTED = ("ranks", "alphas")
"""Adapters that older versions of vLLM load and scale wrongly."""


@pytest.fixture
def folder(family: Family, tmp_path: Path) -> Path:
    return tmp_path / "lora"


def write(folder: Path, family: Family, **config: Any) -> Path:
    settings = {"rank": config.pop("r", 4), "targets": config.pop("target_modules", TARGETS)}
    checkpoints.write_adapter(folder, checkpoints.llama(), 1, **settings, **config)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": str(family.base)}
    path.write_text(json.dumps(config))
    return folder


def by_server(folder: Path) -> dict[str, Serving]:
    return {serving.server: serving for serving in check_servers(folder)}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_server_takes(kind: str, family: Family, folder: Path):
    config, *refusals = KINDS[kind]
    found = by_server(write(folder, family, **config))
    for server, refusal in zip(("vLLM", "llama.cpp"), refusals, strict=True):
        assert found[server].takes == (not refusal)
        assert refusal in "; ".join(found[server].reasons)
    assert (found["vLLM"].note or "").startswith(PATTERNS if kind in NOTED else "")
    assert bool(found["vLLM"].note) == (kind in NOTED)


@pytest.mark.parametrize(("rank", "limit"), [(1, 1), (3, 8), (8, 8), (9, 16), (300, 320)])
def test_vllms_rank(rank: int, limit: int, family: Family, folder: Path):
    command = by_server(write(folder, family, r=rank))["vLLM"].commands.split()
    assert command[:3] == ["vllm", "serve", str(family.base)]
    assert command[command.index("--max-lora-rank") + 1] == str(limit)
    assert command[-1] == f"lora={folder}"


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_tied_embeddings(target: str, family: Family, folder: Path, tmp_path: Path):
    """llama.cpp has one weight for both, which an adapter cannot change as one of them."""
    write(folder, family, target_modules=[target, "q_proj"])
    assert by_server(folder)["llama.cpp"].note is None
    checkpoints.llama(tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    path = folder / "adapter_config.json"
    for base, takes, note in (("tied", False, ""), ("absent", True, "it fails on ")):
        changed = {"base_model_name_or_path": str(tmp_path / base)}
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
        found = by_server(folder)["llama.cpp"]
        assert found.takes == takes
        assert (found.note or "").startswith(note)


def test_layers_that_are_transposed(folder: Path):
    checkpoints.write_adapter(folder, checkpoints.gpt2(), 1, ["c_attn"], fan_in_fan_out=True)
    assert "were not tried" in (by_server(folder)["llama.cpp"].note or "")


def test_fused_experts(folder: Path):
    targets = ["experts.gate_up_proj", "experts.down_proj"]
    settings = {"rank": 2, "targets": ["q_proj"], "target_parameters": targets}
    checkpoints.write_adapter(folder, checkpoints.mixtral(), 1, lora_dropout=0.0, **settings)
    found = by_server(folder)
    assert "adapters on fused experts" in (found["vLLM"].note or "")
    assert "the adapter changes fused experts" in found["llama.cpp"].reasons[0]


def test_other_kinds_of_adapters(family: Family, folder: Path):
    config = peft.LoHaConfig(target_modules=TARGETS)
    peft.get_peft_model(checkpoints.llama(), config).save_pretrained(folder)
    assert all("uses peft's LOHA" in each.reasons[0] for each in check_servers(folder))


def test_damaged_adapters_are_errors(family: Family, folder: Path):
    write(folder, family)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(MergeError, match="it is truncated or damaged"):
        check_servers(folder)


def pasted(commands: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the recipe in a block of commands, with the command that is run on it."""
    first, *recipe, end, command = commands.splitlines()
    # Not by the adapter's name, which the user's own recipe may have.
    ending = "merged" if command.startswith("mergekit-yaml") else "one-rank"
    assert first == f"cat > {folder.name}-{ending}.yml <<'EOF'"
    assert end == "EOF"
    return yaml.safe_load("\n".join(recipe)), shlex.split(command)


def logits(model: Any) -> torch.Tensor:
    return model(torch.arange(1, 17)[None]).logits.detach()


@pytest.mark.parametrize("kind", ["ranks and alphas", "rsLoRA", "embeddings and alphas"])
def test_the_commands_write_an_equal_adapter(
    kind: str, family: Family, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    embeddings = {"target_modules": ["embed_tokens", "v_proj"], "alpha_pattern": {"v_proj": 6}}
    config = KINDS[kind][0] if kind in KINDS else embeddings
    commands = by_server(write(folder, family, **config))["llama.cpp"].commands
    recipe, command = pasted(commands, folder)
    monkeypatch.chdir(folder.parent)
    (folder.parent / command[2]).write_text(yaml.safe_dump(recipe))
    assert command[0] == "mergekit-spectral"
    result = run(*command[1:])
    assert result.exit_code == 0, result.output
    assert all(serving.takes for serving in check_servers(Path(command[3])))
    base = AutoModelForCausalLM.from_pretrained(family.base)
    plain = logits(base)
    expected = logits(peft.PeftModel.from_pretrained(base, folder))
    base = AutoModelForCausalLM.from_pretrained(family.base)
    actual = logits(peft.PeftModel.from_pretrained(base, command[3]))
    assert (actual - expected).norm() < 1e-5 * (expected - plain).norm()


def test_the_commands_lower_the_rank(family: Family, folder: Path):
    commands = by_server(write(folder, family, r=513))["vLLM"].commands
    recipe, command = pasted(commands, folder)
    assert command[-2:] == ["--rank", "512"]
    assert recipe["models"] == [{"model": f"{family.base}+{folder}"}]


@pytest.mark.parametrize("kind", ["DoRA", "whole tensors"])
def test_the_commands_merge_into_the_base(kind: str, family: Family, folder: Path):
    commands = by_server(write(folder, family, **KINDS[kind][0]))["llama.cpp"].commands
    recipe, command = pasted(commands, folder)
    assert command[0] == "mergekit-yaml"
    copies = str(folder.parent / "copies")
    options = [copies if option == "merged-copies" else option for option in command[3:]]
    merged = mergekit_yaml(recipe, folder.parent / command[2], *options)
    actual = logits(AutoModelForCausalLM.from_pretrained(merged))
    base = AutoModelForCausalLM.from_pretrained(family.base)
    plain = logits(base)
    expected = logits(peft.PeftModel.from_pretrained(base, folder))
    assert (actual - expected).norm() < 1e-5 * (expected - plain).norm()


def test_a_base_that_is_not_named(family: Family, folder: Path):
    write(folder, family)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": None}
    path.write_text(json.dumps(config))
    for server, beginning, base in (
        ("vLLM", "vllm serve BASE --enable-lora ", ""),
        ("llama.cpp", "python convert_lora_to_gguf.py ", " --base BASE"),
    ):
        comment, command, *_ = by_server(folder)[server].commands.splitlines()
        assert comment == "# BASE is the base model, which the adapter does not name"
        assert command.startswith(beginning)
        assert command.endswith(base)


def test_the_command(family: Family, folder: Path):
    write(folder, family)
    result = run("check", folder)
    assert result.exit_code == 0, result.output
    first, vllm, second, *llama_cpp = result.output.splitlines()
    assert first == f"{folder}: vLLM takes it:"
    assert vllm.startswith(f"    vllm serve {family.base} --enable-lora --max-lora-rank 8 ")
    assert second == f"{folder}: llama.cpp takes it:"
    convert, comment, serve = (line.strip().split() for line in llama_cpp)
    assert convert[:2] == ["python", "convert_lora_to_gguf.py"]
    assert comment[:2] == ["#", "BASE.gguf"]
    assert serve[:3] == ["llama-server", "-m", "BASE.gguf"]
    found = json.loads(run("check", folder, "--json").output)["servers"]
    assert [(each["server"], each["takes"]) for each in found] == [
        ("vLLM", True),
        ("llama.cpp", True),
    ]
    assert run("check", folder, "--quiet").output == ""


def test_the_command_fails_if_a_server_does(family: Family, folder: Path):
    result = run("check", write(folder, family, use_rslora=True))
    assert result.exit_code == 1
    assert f"{folder}: vLLM takes it:" in result.output
    assert f"{folder}: llama.cpp does not take it: it would scale" in result.output
    assert "    mergekit-spectral adapter lora-one-rank.yml lora-one-rank" in result.output


def test_options_of_recipes_are_refused(family: Family, folder: Path):
    result = run("check", write(folder, family), "--hub")
    assert result.exit_code == 2
    assert "--hub is for recipes, and not for adapters." in result.output


def test_folders_without_an_adapter_are_refused(family: Family, tmp_path: Path):
    assert "has no adapter_config.json" in run("check", tmp_path).output
    result = run("check", family.base)
    assert result.exit_code == 1
    assert "contains a whole model; give a recipe, or the folder of an adapter" in result.output
