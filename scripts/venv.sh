#!/usr/bin/env bash
# Make the virtual environment: pprofpy itself, editable, and what its tests and checks use.
# Usage: venv.sh FOLDER
set -euo pipefail

venv=$1
python=$("$(dirname "$0")/python.sh")
# What an attempt without ensurepip leaves behind has a Python, but no pip: make that one anew.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "setup: making $venv with $python"
    "$python" -m venv --clear "$venv"
fi
echo "setup: installing pprofpy, its tests' and its checks' packages into $venv"
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install 'pip>=25.1' # which knows the dependency groups of pyproject.toml
"${pip[@]}" install --editable . --group dev
