#!/usr/bin/env bash
# Profile a running service that knows nothing of it, and leave the results in demo/.
# Usage: demo.sh PYTHON
set -euo pipefail

python=$1
pprofpy="$(dirname "$python")/pprofpy"
export PPROFPY_DIR=demo
mkdir -p demo

"$python" examples/shop.py --seconds 600 >demo/shop.log 2>&1 &
service=$!
trap 'kill "$service" 2>/dev/null; wait "$service" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    grep -q "^serving" demo/shop.log && break
    kill -0 "$service" || { cat demo/shop.log; exit 1; }
    sleep 0.1
done

show() { echo; echo "\$ $*"; "$@"; }

# A command that needs the kernel's help: its output is also left in demo/; where this machine cannot, it says why.
try() {
    local file=$1
    shift
    show "$@" 2>&1 | tee "$file" || echo "(not possible here; 'pprofpy doctor' says what is missing)"
}

echo "examples/shop.py runs as process $service and serves its own customers."
# The shop has several threads: count the one that holds the interpreter lock, not those that wait for it.
show "$pprofpy" cpu --pid "$service" --gil --seconds "${DEMO_SECONDS:-10}" -o demo/cpu.pb.gz
show "$pprofpy" flamegraph demo/cpu.pb.gz -o demo/cpu.svg
try demo/heap.txt "$pprofpy" heap --pid "$service" --sample-bytes 64k --snapshots 5 --seconds "${DEMO_SECONDS:-10}" \
    -o demo/heap.pb.gz
try demo/sched-latency.txt "$pprofpy" sched-latency --pid "$service" --seconds "${DEMO_SECONDS:-5}"
