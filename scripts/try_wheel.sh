#!/usr/bin/env bash
# Try the wheel for this machine as its user would: in a fresh virtual environment, on a machine without bcc, LLVM and
# compilers. They are hidden in a mount namespace; the demo runs there. Root.
# Usage: try_wheel.sh
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
python=$("$here/scripts/python.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --quiet --disable-pip-version-check install "$here"/dist/*"$(uname -m)".whl
cp -r "$here/examples" "$here/scripts" "$work"

"$here/scripts/without_bcc.sh" bash -euo pipefail -c '
cd "$1"
venv/bin/pprofpy doctor | tee said | grep "eBPF programs"
grep -q "they came with pprofpy" said
DEMO_SECONDS=3 scripts/demo.sh venv/bin/python 2>&1 | tee said
! grep -q "not possible here" said
for command in "cpu --engine bpf --native" "cpu --engine bpf --idle" off-cpu gil "events -e page-faults" trace "trace -s"; do
    venv/bin/pprofpy $command -d 1 -- venv/bin/python -c "for _ in range(9999): sum(range(999)); open(\"/dev/null\").close()" >said 2>&1 ||
        { cat said; exit 1; }
    echo "pprofpy $command: $(grep -c . said) lines"
done
' try "$work"
echo "wheel: the demo works without bcc and compilers"
