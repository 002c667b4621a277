#!/usr/bin/env bash
# Install the system packages that are missing, or say which they are where that is not possible.
# Usage: setup.sh runtime|tests
set -euo pipefail

# A line for each need: a test that succeeds if it is met, the Debian package that meets it, what it is for.
runtime_needs=(
    "test -d /usr/lib/python3/dist-packages/bcc|python3-bpfcc|the eBPF commands"
    "find_python|python3|pprofpy itself (3.11 or later)"
    "has_venv|python3-venv|the virtual environment"
)
test_needs=(
    "command -v chromium|chromium|the tests that open flame graphs in a browser"
    "command -v npm|npm|the tests with speedscope's own importer"
    "command -v cc|gcc|the tests that compile small programs"
    "command -v perf|linux-perf|the tests against perf"
    "command -v setpriv|util-linux|the tests as another user"
)

find_python() { "$(dirname "$0")/python.sh"; }
has_venv() { "$(find_python)" -c 'import ensurepip, venv'; }

case "${1:-}" in
    runtime) needs=("${runtime_needs[@]}") ;;
    tests) needs=("${test_needs[@]}") ;;
    *) echo "usage: $0 runtime|tests" >&2; exit 2 ;;
esac

packages=()
for need in "${needs[@]}"; do
    IFS='|' read -r check package purpose <<<"$need"
    if ! $check >/dev/null 2>&1; then
        packages+=("$package")
        echo "setup: $package is missing: needed for $purpose"
    fi
done
[ ${#packages[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo)
else
    as_root=(false)
fi
if ! command -v apt-get >/dev/null || [ "${as_root[*]}" = false ]; then
    echo "setup: cannot install it (that takes apt-get, and root or sudo); going on without"
    exit 0
fi

echo "setup: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install --yes --no-install-recommends "${packages[@]}"; } \
    >"$log" 2>&1; then
    tail -n 5 "$log"
    echo "setup: that failed; going on without"
fi
