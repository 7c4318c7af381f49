"""Print what merges of large models take, by the estimates of `mergekit-spectral check`.

    python -m benchmarks.memory [--methods drm,ties] [--sizes 7B,13B,70B]

Nothing is merged. Base, fine-tunes and adapters are files with true headers and without contents,
in bfloat16. Density is 0.5 and `direction` is `auto`, in methods that have them. Main memory is
for each worker of `run` that merges on the CPU, and for one whole `mergekit-yaml`; both without
pages of the inputs' files. GPU memory is that of a merge with --cuda. Times are those of one core
of this machine; with n cores, `run` takes an n-th of them at best.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import click
import torch
import transformers
import yaml
from mergekit.options import MergeOptions

from benchmarks.llama import LINEAR
from benchmarks.machine import machine_line, write_json
from benchmarks.options import json_option
from mergekit_spectral.checking.checks import plan_whole_merge
from mergekit_spectral.checking.memory import find_memory_peak
from mergekit_spectral.checking.report import duration
from mergekit_spectral.checking.timing import measure_speeds
from mergekit_spectral.command_line.option_types import Listed
from mergekit_spectral.command_line.tables import print_table
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.scaling.parts import cut
from mergekit_spectral.scaling.resources import PROCESS_BYTES, worker_bytes

SIZES = {  # width, intermediate size, layers, heads, key-value heads
    "7B": (4096, 11008, 32, 32, 32),
    "13B": (5120, 13824, 40, 40, 40),
    "70B": (8192, 28672, 80, 64, 8),
}
VOCABULARY = 32000
SHARD_BYTES = 5 * 10**9
RANK = 16
"""Of adapters."""
Shapes = Mapping[str, tuple[int, ...]]


def write_headers(file: Path, shapes: Shapes, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a safetensors file in which nothing but the header is stored."""
    header, end = {}, 0
    name_of_dtype = {torch.bfloat16: "BF16", torch.float32: "F32"}[dtype]
    for name, shape in shapes.items():
        begin, end = end, end + dtype.itemsize * torch.Size(shape).numel()
        header[name] = {"dtype": name_of_dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        opened.truncate(8 + len(text) + end)


def configuration(name: str) -> transformers.PretrainedConfig:
    """Return the configuration of a size."""
    width, intermediate, layers, heads, kv_heads = SIZES[name]
    return transformers.LlamaConfig(
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=VOCABULARY,
        architectures=["LlamaForCausalLM"],
    )


def write_model(folder: Path, config: transformers.PretrainedConfig) -> Shapes:
    """Write a model without contents, and return the shapes of its tensors."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    files: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for tensor, shape in shapes.items():
        size += 2 * torch.Size(shape).numel()
        if size > SHARD_BYTES:
            files.append({})
            size = 2 * torch.Size(shape).numel()
        files[-1][tensor] = shape
    index: dict[str, str] = {}
    for number, own in enumerate(files, start=1):
        file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        write_headers(folder / file, own)
        index |= dict.fromkeys(own, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return shapes


def write_adapter(
    folder: Path,
    shapes: Shapes,
    rank: int,
    targets: tuple[str, ...] = LINEAR,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write an adapter without contents."""
    factors = {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if module.endswith(targets):
            factors[f"base_model.model.{module}.lora_A.weight"] = (rank, shape[1])
            factors[f"base_model.model.{module}.lora_B.weight"] = (shape[0], rank)
    folder.mkdir(parents=True)
    write_headers(folder / "adapter_model.safetensors", factors, dtype)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(targets)}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def plan(folder: Path, method: str, kind: str, count: int, device: str) -> PlannedMerge:
    """Plan a merge of the models in a folder."""
    inputs = [folder / f"{kind}-{number}" for number in range(count)]
    prefix = f"{folder / 'base'}+" if kind == "lora" else ""
    recipe = folder / "recipe.yml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "merge_method": method,
                "base_model": str(folder / "base"),
                "models": [{"model": f"{prefix}{each}"} for each in inputs],
                "parameters": {"weight": 1.0, "density": 0.5, "direction": "auto"},
                "dtype": "bfloat16",
            }
        )
    )
    options = MergeOptions(device=device, lora_merge_cache=str(folder / "copies"))
    merge, _ = plan_whole_merge(recipe, options, folder / "out")
    return merge


@dataclass(frozen=True)
class Estimate:
    """What a merge takes.

    Attributes:
        size: of the models, a key of `SIZES`.
        kind: of the inputs, lora or full.
        method: the merge method.
        count: how many inputs.
        worker_bytes: memory of one worker of `run`.
        command_bytes: memory of `mergekit-yaml`.
        gpu_bytes: memory of the GPU, with --cuda.
        core_seconds: time of one core.
        written_bytes: size of the merged model.
    """

    size: str
    kind: str
    method: str
    count: int
    worker_bytes: int
    command_bytes: int
    gpu_bytes: int
    core_seconds: float
    written_bytes: int


def estimates(
    size: str, methods: list[str], counts: list[int], rank: int = RANK
) -> Iterator[Estimate]:
    """Yield the estimates for one size of model."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shapes = write_model(folder / "base", configuration(size))
        for number in range(max(counts)):
            (folder / f"full-{number}").symlink_to(folder / "base")
            write_adapter(folder / f"lora-{number}", shapes, rank)
        for kind, count, method in product(("lora", "full"), counts, methods):
            merge = plan(folder, method, kind, count, "cpu")
            parts = cut(merge)
            peak = find_memory_peak(merge, PROCESS_BYTES)
            on_gpu = find_memory_peak(plan(folder, method, kind, count, "cuda"), 0)
            speeds = measure_speeds(merge.method, count, threads=1)
            yield Estimate(
                size=size,
                kind=kind,
                method=method,
                count=count,
                worker_bytes=int(worker_bytes(parts)),
                command_bytes=int(peak.host - peak.mapped),
                gpu_bytes=int(on_gpu.device),
                core_seconds=sum(part.seconds(speeds) for part in parts),
                written_bytes=sum(part.written_bytes for part in parts),
            )


@click.command(help=__doc__)
@click.option("--sizes", type=Listed(click.Choice(list(SIZES))), default="7B,13B,70B")
@click.option(
    "--methods", type=Listed(click.STRING), default="iso,actmat,tsvm,drm,ties", show_default=True
)
@click.option("--counts", type=Listed(click.INT), default="2,4,8", show_default=True)
@click.option("--rank", default=RANK, show_default=True, help="Of adapters.")
@json_option
def main(
    sizes: list[str], methods: list[str], counts: list[int], rank: int, json_path: Path | None
) -> None:
    """Print the table."""
    found = [each for size in sizes for each in estimates(size, methods, counts, rank)]
    print_table(
        "What merges take",
        (
            "model",
            "inputs",
            "method",
            "T",
            "GB a worker",
            "GB mergekit-yaml",
            "GB of GPU",
            "core time",
            "GB written",
        ),
        [_row(each) for each in found],
        words=("model", "inputs", "method"),
        notes=[machine_line()],
    )
    if json_path:
        write_json(json_path, rank=rank, estimates=[asdict(each) for each in found])


def _row(estimate: Estimate) -> list[str]:
    return [
        estimate.size,
        estimate.kind,
        estimate.method,
        str(estimate.count),
        f"{estimate.worker_bytes / 1e9:.1f}",
        f"{estimate.command_bytes / 1e9:.1f}",
        f"{estimate.gpu_bytes / 1e9:.1f}",
        duration(estimate.core_seconds),
        f"{estimate.written_bytes / 1e9:.0f}",
    ]


if __name__ == "__main__":
    main()
