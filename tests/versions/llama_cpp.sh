#!/usr/bin/env bash
# Convert a merged model and a merged adapter with llama.cpp's own scripts, run both in llama.cpp, and
# compare the probabilities of the next token with those of transformers and peft.
#
#     tests/versions/llama_cpp.sh PYTHON
#
# PYTHON needs mergekit-spectral[demo]. The scripts come from the source distribution of
# llama-cpp-python, which contains llama.cpp's repository; llama.cpp itself from xllamacpp's wheel.
set -euo pipefail
python=$(realpath --no-symlinks "$1")
here=$(realpath "$(dirname "$0")")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --no-binary llama-cpp-python --dest "$folder" llama-cpp-python
mkdir "$folder/source"
tar -xzf "$folder"/llama_cpp_python-*.tar.gz -C "$folder/source" --strip-components 1
"$python" -m pip install --quiet --disable-pip-version-check --target "$folder/site" xllamacpp

"$python" "$here/llama_cpp.py" "$folder" "$folder/source/vendor/llama.cpp" "$folder/site"
