#!/usr/bin/env bash
# Make the virtual environment: pprofpy itself, editable, and what its tests and checks use.
# Usage: venv.sh FOLDER
set -euo pipefail

venv=$1
[ -x "$venv/bin/python" ] || "$(dirname "$0")/python.sh" | { read -r python; "$python" -m venv "$venv"; }
echo "setup: installing pprofpy and its tools into $venv"
# Dependency groups (pyproject.toml) take pip 25.1 or later.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable . --group dev
