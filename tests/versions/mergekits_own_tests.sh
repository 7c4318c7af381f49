#!/usr/bin/env bash
# Run mergekit's own tests, from the source distribution of the installed version, without this
# package's hook and with it: the same tests must pass.
#
#     tests/versions/mergekits_own_tests.sh PYTHON
set -euo pipefail
python=$(realpath --no-symlinks "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

version=$("$python" -c 'from importlib.metadata import version; print(version("mergekit"))')
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary mergekit \
    --no-build-isolation --dest "$folder" "mergekit==$version"
tar -xzf "$folder"/mergekit-*.tar.gz -C "$folder" --strip-components 1
rm -rf "${folder:?}/mergekit" # the installed one is tested

cd "$folder"
# The source distribution of 0.1.5 lacks tests/common.py, so the files that import it cannot run.
tests=(tests/test_*.py)
if [[ ! -f tests/common.py ]]; then
    mapfile -t tests < <(grep -LE "^from tests\.(common|test_)" "${tests[@]}")
    echo "tests/common.py is missing; running ${#tests[@]} files that do not need it"
fi
for autoload in 0 1; do
    echo "mergekit $version, TORCH_DEVICE_BACKEND_AUTOLOAD=$autoload"
    TORCH_DEVICE_BACKEND_AUTOLOAD=$autoload "$python" -m pytest -p no:cacheprovider --quiet "${tests[@]}"
done
