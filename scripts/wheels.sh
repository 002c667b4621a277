#!/usr/bin/env bash
# Build the sdist, and from it a wheel for each kind of machine, into dist/; then check all of them.
# Usage: wheels.sh PYTHON
set -euo pipefail

python=$1
mapfile -t machines < <("$python" -c 'from pprofpy import arch; print(*arch.MACHINES, sep="\n")')
"$python" -m pip --quiet --disable-pip-version-check install --group wheel
"$python" scripts/compile_programs.py "${machines[@]}"
rm -rf dist
"$python" -m build --sdist --outdir dist . >/dev/null

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for machine in "${machines[@]}"; do
    mkdir "$work/$machine"
    tar -xzf dist/*.tar.gz -C "$work/$machine"
    PPROFPY_WHEEL_FOR=$machine "$python" -m build --wheel --outdir dist "$work/$machine"/* >/dev/null
done
"$python" -m twine check --strict dist/*
for wheel in dist/*.whl; do
    "$python" -m auditwheel show "$wheel" | tee "$work/said"
    grep -q "no external shared libraries" "$work/said" || { echo "wheels: $wheel needs libraries" >&2; exit 1; }
done
ls -l dist
