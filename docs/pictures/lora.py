"""What is read and written when adapters are merged: as full copies, or as factors."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.memory import plan, write_adapter, write_headers
from docs.pictures.canvas import MARGIN, RIGHT, SMALL, Canvas, Picture
from mergekit_spectral.scaling.parts import cut

COUNT, RANK = 4, 16
LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


@dataclass(frozen=True)
class Files:
    """Bytes of a merge of four adapters of rank 16 on Llama 3 8B, in bfloat16.

    Attributes:
        base: of the base model.
        adapter: of one adapter.
        copies: by method, of the copies that are written before the merge.
        merged: of the merged model.
    """

    base: int
    adapter: int
    copies: dict[str, int]
    merged: int

    def written(self, method: str) -> int:
        """Return the bytes that a merge by a method writes."""
        return self.copies[method] + self.merged


@cache
def example() -> Files:
    """Have the package plan the merges, of files with true headers and without contents."""
    config = transformers.LlamaConfig(**LLAMA_8B, architectures=["LlamaForCausalLM"])
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "base").mkdir()
        config.save_pretrained(folder / "base")
        write_headers(folder / "base" / "model.safetensors", shapes)
        for number in range(COUNT):
            write_adapter(folder / f"lora-{number}", shapes, RANK)
        merges = {method: plan(folder, method, "lora", COUNT, "cpu") for method in ("ties", "drm")}
        return Files(
            base=_size(folder / "base"),
            adapter=_size(folder / "lora-0"),
            copies={method: merge.copy_bytes for method, merge in merges.items()},
            merged=sum(part.written_bytes for part in cut(merges["drm"])),
        )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def picture() -> Picture:
    """Return the drawing."""
    files = example()
    alt = (
        f"Merging {COUNT} adapters of rank {RANK} on Llama 3 8B, with boxes as large as the files "
        f"are. Above, by ties: base, {_gigabytes(files.base)}, and adapters, "
        f"{files.adapter / 1e6:.0f} MB each, become {COUNT} full copies of "
        f"{_gigabytes(files.base)}, and these become the merged model: "
        f"{_gigabytes(files.written('ties'))} are written. Below, by drm: base and adapters become "
        f"the merged model directly, and {_gigabytes(files.written('drm'))} are written."
    )
    return Picture("lora", alt, HEIGHT, lambda canvas: _draw(canvas, files))


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


HEIGHT = 316.0
SIDE = 44.0
COPIES, MERGED = 112.0, RIGHT - SIDE
"""The left ends of the copies and of the merged model."""
PER_ROW = 2


def _draw(canvas: Canvas, files: Files) -> None:
    theme, faded = canvas.theme, canvas.theme.faded
    canvas.title(14, "ties: every adapter becomes a full copy")
    top = 28.0
    size = PER_ROW * SIDE + 5
    _inputs(canvas, top + (size - SIDE) / 2, files)
    _arrow(canvas, COPIES - 24, COPIES - 5, top + size / 2)
    for number in range(COUNT):
        row, column = divmod(number, PER_ROW)
        corner = COPIES + column * (SIDE + 5), top + row * (SIDE + 5)
        _model(canvas, *corner, "copy", files.copies["ties"] // COUNT, theme.positive)
    _arrow(canvas, COPIES + size + 4, MERGED - 5, top + size / 2)
    _model(canvas, MERGED, top + (size - SIDE) / 2, "merged", files.merged, theme.accent)
    canvas.text(COPIES + size / 2, top + size + 9, "written, then read", SMALL, faded, "center")

    canvas.title(158, "drm, knots_ties, star, iso, …: no copies")
    top = 172.0
    _inputs(canvas, top, files)
    _arrow(canvas, COPIES - 24, MERGED - 5, top + SIDE / 2)
    _model(canvas, MERGED, top, "merged", files.merged, theme.accent)
    text = "the two thin factors of each\nadapter are merged"
    canvas.text((COPIES + MERGED) / 2 - 14, top + SIDE / 2 - 22, text, SMALL, faded, "center")
    each = f"{files.adapter / 1e6:.0f} MB each, to scale"
    text = f"Thin lines: {COUNT} adapters of rank {RANK}, {each}.\nThe model is Llama 3 8B."
    canvas.text(MARGIN, top + SIDE + 11, text, SMALL, faded)

    canvas.title(264, "Written to disk, in GB")
    left, length = MARGIN + 34, RIGHT - MARGIN - 34 - 30
    for y, method in ((281.0, "ties"), (299.0, "drm")):
        unit = length / files.written("ties")
        copies = round(files.copies[method] * unit, 1)
        canvas.text(left - 6, y, method, align="right")
        if copies:
            canvas.box(left, y - 5.5, copies - 1, 11, theme.positive)
        canvas.box(left + copies, y - 5.5, round(files.merged * unit, 1), 11, theme.accent)
        canvas.text(RIGHT, y, f"{files.written(method) / 1e9:.1f}", align="right", bold=True)


def _inputs(canvas: Canvas, y: float, files: Files) -> None:
    """Draw the base, and beside it the adapters as thin as they are."""
    _model(canvas, MARGIN, y, "base", files.base, canvas.theme.faded)
    for number in range(COUNT):
        x = MARGIN + SIDE + 6 + 5 * number
        canvas.box(x, y, round(SIDE * files.adapter / files.base, 2), SIDE, canvas.theme.ink)


def _model(canvas: Canvas, x: float, y: float, name: str, size: int, color: str) -> None:
    page, middle = canvas.theme.page, x + SIDE / 2
    canvas.box(x, y, SIDE, SIDE, color)
    canvas.text(middle, y + SIDE / 2 - 5, name, SMALL, page, "center", bold=True)
    canvas.text(middle, y + SIDE / 2 + 6, _gigabytes(size), SMALL, page, "center")


def _arrow(canvas: Canvas, start: float, end: float, y: float) -> None:
    canvas.arrow((start, y), (end, y), canvas.theme.ink)
