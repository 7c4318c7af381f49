"""Compare llama.cpp with transformers and peft on a merged model and adapter; see llama_cpp.sh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergekit_spectral.demo.base_model import MODEL_NAME, find_gguf, save_base_model

CHAT = [{"role": "user", "content": "What is the plural of mouse?"}]
RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2" / "tsvm.yml"
SCRIPTS = Path(sys.executable).parent

# Differences of the first token's log-probabilities: llama.cpp rounds activations.
TOLERANCE = 0.05

IN_LLAMA_CPP = """
import json, sys
import xllamacpp as llama
params = llama.CommonParams()
params.model.path, params.n_ctx, params.verbosity = sys.argv[1], 512, 0
if sys.argv[2:]:
    params.lora_adapters = [llama.CommonAdapterLoraInfo(sys.argv[2], 1.0)]
options = {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 5}
answer = llama.Server(params).handle_chat_completions({"messages": json.load(sys.stdin), **options})
(token,) = answer["choices"][0]["logprobs"]["content"]
print(json.dumps({each["token"]: each["logprob"] for each in token["top_logprobs"]}))
"""


def main(folder: Path, llama_cpp: Path, site: Path) -> None:
    base, merged, adapter = folder / "base", folder / "merged", folder / "adapter"
    save_base_model(find_gguf(folder), base)
    recipe = yaml.safe_load(RECIPE.read_text().replace(MODEL_NAME, str(base)))
    for entry in recipe["models"]:
        model, _, own = entry["model"].partition("+")
        entry["model"] = f"{model}+{RECIPE.parent / own}"
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe))
    run(SCRIPTS / "mergekit-yaml", path, merged)
    # Weights of different ranks, of which llama.cpp would scale the smaller ones up
    run(SCRIPTS / "mergekit-spectral", "adapter", path, adapter, "--energy", "0.8")

    for model in (base, merged):
        convert = llama_cpp / "convert_hf_to_gguf.py"
        run(sys.executable, convert, model, "--outfile", f"{model}.gguf", "--outtype", "bf16")
    convert = llama_cpp / "convert_lora_to_gguf.py"
    run(sys.executable, convert, adapter, "--base", base, "--outfile", f"{adapter}.gguf")

    model = AutoModelForCausalLM.from_pretrained(merged)
    again = AutoModelForCausalLM.from_pretrained(folder, gguf_file="merged.gguf")
    weights, kept = model.state_dict(), again.state_dict()
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[name].float(), kept[name].float()) for name in weights)
    print("merged.gguf has exactly the weights of the merged model.")

    compare("merged model", model, base, in_llama_cpp(site, f"{merged}.gguf"))
    adapted = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    compare("adapter", adapted, base, in_llama_cpp(site, f"{base}.gguf", f"{adapter}.gguf"))


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def in_llama_cpp(site: Path, *files: str) -> dict[str, float]:
    """Return the log-probabilities of the first token's likeliest values."""
    answer = subprocess.run(
        [sys.executable, "-c", IN_LLAMA_CPP, *files],
        env={**os.environ, "PYTHONPATH": str(site)},
        input=json.dumps(CHAT),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


@torch.no_grad()
def compare(what: str, model: Any, base: Path, found: dict[str, float]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    text = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(text, return_tensors="pt")
    expected = model.float()(**tokens).logits[0, -1].log_softmax(-1)
    differences = {
        token: abs(value - float(expected[tokenizer.encode(token)[0]]))
        for token, value in found.items()
    }
    largest = max(differences.values())
    print(f"{what}: log-probabilities differ by at most {largest:.3f}.")
    assert largest < TOLERANCE, differences


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
