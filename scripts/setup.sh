#!/usr/bin/env bash
# Install the system packages that are missing, or say which they are where that is not possible.
# Usage: setup.sh runtime|tests|kernels|wheel|image
set -euo pipefail

# A line for each need: a test that succeeds if it is met, the packages that meet it (the first that this system
# offers is taken), what it is for.
runtime_needs=(
    "test -d /usr/lib/python3/dist-packages/bcc|python3-bpfcc|the eBPF commands"
    "has_python|$("$(dirname "$0")/python.sh" --packages)|pprofpy itself: Python 3.11 or later, with venv"
    "command -v cc|gcc|the sampler of pprofpy heap"
    "test -e /usr/include/stdio.h|libc6-dev|the sampler of pprofpy heap"
)
test_needs=(
    "command -v chromium|chromium|the tests that open flame graphs in a browser"
    "command -v npm|npm|the tests with speedscope's own importer"
    "command -v perf|linux-perf linux-tools-generic|the tests against perf"
    "ls /usr/lib/*/libpython3*.so.1.0|libpython3.11 libpython3.12 libpython3.13 libpython3.14|the tests with two interpreters in a process"
    "command -v setpriv|util-linux|the tests as another user"
    "command -v strace|strace|the tests that watch which files pprofpy changes"
)
kernel_needs=(
    "command -v qemu-system-x86_64|qemu-system-x86|make kernels: the machine that other kernels run in"
    "command -v qemu-system-aarch64|qemu-system-arm|make kernels: the machine that arm64 kernels run in"
    "command -v aarch64-linux-gnu-gcc|gcc-aarch64-linux-gnu|make kernels: the program that runs in it"
    "test -e /usr/aarch64-linux-gnu/lib/libc.a|libc6-dev-arm64-cross|make kernels: the same, without a C library beside it"
    "command -v cpio|cpio|make kernels: what that machine starts with"
    "command -v lz4|lz4|make kernels: Debian's cloud kernels are compressed with it"
    "command -v zstd|zstd|make kernels: others with this"
)

wheel_needs=(
    "command -v aarch64-linux-gnu-gcc|gcc-aarch64-linux-gnu|the heap sampler of arm64"
    "test -e /usr/aarch64-linux-gnu/include/stdio.h|libc6-dev-arm64-cross|the heap sampler of arm64"
)
image_needs=(
    "command -v mmdebstrap|mmdebstrap|make image: the bare Debian that pprofpy is installed into"
)

has_python() {
    local python
    python=$("$(dirname "$0")/python.sh") && "$python" -c 'import ensurepip, venv'
}

# Prints the command that makes a command root's; fails where there is none.
become_root() {
    if [ "$(id -u)" -eq 0 ]; then
        echo env
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; }; then
        echo sudo
    else
        return 1
    fi
}

# Prints the first of some packages that this system offers.
offered() {
    local package
    for package in "$@"; do
        if [[ $(apt-cache show "$package" 2>/dev/null) == *Version:* ]]; then
            echo "$package"
            return
        fi
    done
    return 1
}

case "${1:-}" in
    runtime) needs=("${runtime_needs[@]}") ;;
    tests)
        needs=("${test_needs[@]}")
        "$(dirname "$0")/fetch_python.sh" 3.14 >/dev/null || true # says why not
        "$(dirname "$0")/fetch_python.sh" 3.15 >/dev/null || true
        ;;
    kernels) needs=("${kernel_needs[@]}") ;;
    wheel) needs=("${wheel_needs[@]}") ;;
    image) needs=("${image_needs[@]}") ;;
    *) echo "usage: $0 runtime|tests|kernels|wheel|image" >&2; exit 2 ;;
esac

missing=()
for need in "${needs[@]}"; do
    IFS='|' read -r check packages purpose <<<"$need"
    if ! $check >/dev/null 2>&1; then
        missing+=("$packages")
        echo "setup: ${packages// / or } is missing: needed for $purpose"
    fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "setup: there is no apt-get to install it with; going on without"
    exit 0
fi
if ! root=$(become_root); then
    echo "setup: installing it takes root or sudo; going on without"
    exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$root" apt-get update >"$log" 2>&1 || { tail -n 3 "$log"; echo "setup: apt-get update failed; trying with the old lists"; }
chosen=()
for packages in "${missing[@]}"; do
    # shellcheck disable=SC2086 # a list of words
    if package=$(offered $packages); then
        chosen+=("$package")
    else
        echo "setup: this system does not offer ${packages// / or }; going on without"
    fi
done
[ ${#chosen[@]} -gt 0 ] || exit 0
echo "setup: installing ${chosen[*]}"
install=(env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=300)
if ! "$root" "${install[@]}" "${chosen[@]}" >"$log" 2>&1; then
    tail -n 5 "$log"
    echo "setup: that failed; going on without"
fi
