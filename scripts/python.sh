#!/usr/bin/env bash
# Print the path of the first Python here that is new enough for pprofpy; with --packages, the packages that give one.
set -euo pipefail

for name in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if path=$(command -v "$name") && "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        # A shim or a virtual environment is only a door to the Python that is meant.
        "$path" -c "import sys; print(sys._base_executable if not '$*' else 'python%d.%d-venv' % sys.version_info[:2])"
        exit 0
    fi
done
if [ "${1:-}" = --packages ]; then
    echo python3.13-venv python3.12-venv python3.11-venv
    exit 0
fi
echo "setup: pprofpy needs Python 3.11 or later; on Debian 12: apt-get install python3 python3-venv" >&2
exit 1
