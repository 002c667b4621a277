#!/usr/bin/env bash
# Print the path of the first Python here that is new enough for pprofpy.
set -euo pipefail

for name in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if path=$(command -v "$name") && "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        "$path" -c 'import sys; print(sys.executable)'
        exit 0
    fi
done
echo "pprofpy needs Python 3.11 or later; on Debian 12: apt-get install python3 python3-venv" >&2
exit 1
