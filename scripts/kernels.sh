#!/usr/bin/env bash
# Hand every eBPF program of every command to the verifier of another kernel: one of this Debian's own, booted in an
# emulated machine that needs no KVM. The programs are compiled here, for that kernel's types; the guest holds nothing but
# them and one static program that loads them (kernel_init.c). Takes two to five minutes. Root: bcc makes maps.
# Usage: kernels.sh PYTHON VERSION     e.g. kernels.sh .venv/bin/python 6.1
set -euo pipefail

python=$1 version=$2
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pprofpy-tests/kernels
here=$(cd "$(dirname "$0")" && pwd)
# What 6.12 is emulated wrongly with (cmpxchg16b), and a clock that does not depend on how busy this machine is.
line="console=ttyS0 loglevel=4 panic=-1 mitigations=off random.trust_cpu=on tsc=reliable clocksource=tsc clearcpuid=141"
tries=3

give_up() {
    echo "kernels: $1" >&2
    exit 1
}

# The newest image of that version for clouds: it is the smallest. Prints the package's name.
image_package() {
    apt-cache search --names-only "^linux-image-${version//./\\.}(\.[0-9]+)*(-[0-9]+|\+deb[0-9]+[a-z0-9+-]*)-cloud-amd64\$" |
        sed 's/ .*//' | sort --version-sort | tail -n 1
}

fetch() {
    local work
    work=$(mktemp -d "$folder/.new.XXXXXX")
    (cd "$work" && apt-get download -q -q -o APT::Sandbox::User=root "$package" >&2) || give_up "apt does not give $package"
    dpkg-deb --extract "$work"/*.deb "$work"
    cp "$work"/boot/vmlinuz-* "$work/vmlinuz"
    "$python" "$here/kernel_btf.py" "$work/vmlinuz" "$work/btf"
    mkdir -p "$folder/$package"
    mv "$work/vmlinuz" "$work/btf" "$folder/$package/"
    rm -rf "$work"
}

for need in qemu-system-x86_64 cpio gcc lz4 zstd; do
    command -v "$need" >/dev/null || give_up "$need is missing: $here/setup.sh kernels installs it"
done
mkdir -p "$folder"
package=$(image_package)
[ -n "$package" ] || give_up "this system offers no kernel $version"
[ -e "$folder/$package/btf" ] || fetch
release=${package#linux-image-}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/dev"
gcc -O1 -static -o "$work/root/init" "$here/kernel_init.c"
mknod "$work/root/dev/console" c 5 1
(cd "$here/.." && "$python" -m tests.kernel_programs "$work/root/programs" "$folder/$package/btf" "$release")
(cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/initrd"

for attempt in $(seq $tries); do
    # Without smap: its emulation faults. An early hang is seen now and then: the emulation's, too.
    timeout 900 qemu-system-x86_64 -accel tcg,thread=multi,tb-size=512 -machine q35 -cpu max,-smap -smp 1 -m 2048 \
        -nodefaults -no-reboot -display none -serial stdio -kernel "$folder/$package/vmlinuz" -initrd "$work/initrd" \
        -append "$line" </dev/null | tr -d '\r' | tee "$work/said" | sed -un 's/^kernel: //p' || true
    if grep -q '^kernel: done' "$work/said"; then
        grep -q '^kernel: done, 0 of [1-9]' "$work/said" || give_up "Linux $release refuses some programs"
        exit 0
    fi
    echo "kernels: Linux $release did not come to its end (attempt $attempt of $tries)" >&2
done
tail -n 20 "$work/said" >&2
give_up "Linux $release cannot be tested here"
