#!/usr/bin/env bash
# Hand every eBPF program of every command to the verifiers of other kernels: Debian's own, booted in an emulated machine
# that needs no KVM. The programs are compiled here, for that kernel's types; the guest holds nothing but them and one
# static program that loads them (kernel_init.c). Takes one to three minutes a kernel. Root: bcc makes maps.
# With `truth`, pprofpy itself runs in the guest instead, and records programs with known answers: some minutes a kernel.
# What came of it is written to docs/kernels.md.
# Fails with status 75 if some could not be tried, else all were as they should be.
# Usage: kernels.sh verify|truth PYTHON VERSIONS ARCHITECTURES     e.g. kernels.sh verify .venv/bin/python "6.1 newest" arm64
set -euo pipefail

what=$1 python=$2
read -ra versions <<<"$3"
read -ra architectures <<<"$4"
here=$(cd "$(dirname "$0")" && pwd)
tries=3

declare -A machines=([amd64]=x86_64 [arm64]=aarch64)
declare -A compilers=([amd64]=gcc [arm64]=aarch64-linux-gnu-gcc)
declare -A consoles=([amd64]=ttyS0 [arm64]=ttyAMA0)
# Without smap: its emulation faults.
declare -A boards=([amd64]="-machine q35 -cpu max,-smap" [arm64]="-machine virt -cpu max,pauth-impdef=on")
# What 6.12 is emulated wrongly with (cmpxchg16b), and a clock that does not depend on how busy this machine is.
declare -A lines=([amd64]="tsc=reliable clocksource=tsc clearcpuid=141" [arm64]="")

# The status of what could not be tried: no emulator, no such kernel to be had, or one that did not come to its end.
untried=75

give_up() {
    echo "kernels: $1" >&2
    exit "${2:-1}"
}

# Boot a kernel with what is in the folder $work/root. What its first process says after `kernel: ` is printed, and all
# in $work/said. Fails if it did not come to its end.
boot() {
    local architecture=$1 kernel=$2 first=$3 board
    read -ra board <<<"${boards[$architecture]}"
    (cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/initrd"
    for attempt in $(seq $tries); do
        # An early hang is seen now and then: the emulation's, too.
        timeout 900 "qemu-system-${machines[$architecture]}" -accel tcg,thread=multi,tb-size=512 "${board[@]}" -smp 1 \
            -m 3072 -nodefaults -no-reboot -display none -serial stdio -kernel "$kernel/vmlinuz" -initrd "$work/initrd" \
            -append "console=${consoles[$architecture]} loglevel=4 panic=-1 mitigations=off random.trust_cpu=on ${lines[$architecture]} $first" \
            </dev/null | stdbuf -o0 tr -d '\r' | tee "$work/said" | sed -un 's/^kernel: //p' || true
        if grep -q '^kernel: done' "$work/said"; then
            return
        fi
        echo "kernels: it did not come to its end (attempt $attempt of $tries)" >&2
    done
    tail -n 20 "$work/said" >&2
    return 1
}

verify() {
    local version=$1 architecture=$2 kernel=$3 release=$4
    "${compilers[$architecture]}" -O1 -static -o "$work/root/init" "$here/kernel_init.c"
    "$python" -m tests.kernel_programs "$work/root/programs" "$kernel/btf" "$release" "${machines[$architecture]}" \
        >"$work/compiled"
    boot "$architecture" "$kernel" "" || return $untried
    "$python" -m tests.kernel_report "$version" "$architecture" "$release" "$work/compiled" "$work/said"
}

truth() {
    local version=$1 architecture=$2 kernel=$3 release=$4 root flags=(-O2 -fomit-frame-pointer -shared -fPIC)
    root=$("$here/guest_root.sh" "$python" "$architecture")
    "$python" scripts/compile_programs.py "$(uname -m)" "${machines[$architecture]}" >/dev/null
    [ "$architecture" = amd64 ] || flags+=(-mbranch-protection=standard) # return addresses are signed
    cp -a "$root/." "$work/root/"
    mkdir -p "$work/root/pprofpy"
    cp -a pprofpy "$work/root/pprofpy/"
    cp -a tests/programs "$work/root/"
    cp tests/guest.py "$work/root/"
    "${compilers[$architecture]}" "${flags[@]}" -o "$work/root/programs/libnative.so" tests/programs/native.c
    "$python" -m tests.kernel_truth steps "$architecture" >"$work/root/steps.json"
    boot "$architecture" "$kernel" "rdinit=/usr/bin/python3.11 -- /guest.py" || return $untried
    "$python" -m tests.kernel_truth "$version" "$architecture" "$release" "$work/said"
}

check() {
    local version=$1 architecture=$2 kernel status=0
    kernel=$("$here/kernel_package.sh" "$python" "$version" "$architecture") || return $untried
    work=$(mktemp -d)
    mkdir -p "$work/root/dev"
    mknod "$work/root/dev/console" c 5 1
    "$what" "$version" "$architecture" "$kernel" "$(basename "$kernel")" || status=$?
    [ ! -e "$work/said" ] || cp "$work/said" "$kernel/$what.said"
    rm -rf "$work"
    return $status
}

for architecture in "${architectures[@]}"; do
    for need in "qemu-system-${machines[$architecture]}" "${compilers[$architecture]}" cpio lz4 zstd; do
        command -v "$need" >/dev/null || give_up "$need is missing: $here/setup.sh kernels installs it" $untried
    done
done
cd "$here/.."
case $what in verify | truth) ;; *) give_up "verify or truth, not $what" ;; esac
work=
trap 'rm -rf "$work"' EXIT
failed=() left=()
for architecture in "${architectures[@]}"; do
    for version in "${versions[@]}"; do
        status=0
        check "$version" "$architecture" || status=$?
        case $status in
            0) ;;
            $untried) left+=("$version on $architecture") ;;
            *) failed+=("$version on $architecture") ;;
        esac
    done
done
[ ${#failed[@]} -eq 0 ] || give_up "not as it should be: ${failed[*]}"
[ ${#left[@]} -eq 0 ] || give_up "could not be tried: ${left[*]}" $untried
