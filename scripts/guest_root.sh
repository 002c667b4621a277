#!/usr/bin/env bash
# Make the root folder of an emulated machine in which pprofpy itself runs: Debian 12's Python, and what pprofpy needs, for
# that machine; nothing is installed here. Prints the folder; pprofpy itself is not in it.
# Usage: guest_root.sh PYTHON ARCHITECTURE     e.g. guest_root.sh .venv/bin/python arm64
set -euo pipefail

python=$1 architecture=$2
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pprofpy-tests/guests
here=$(cd "$(dirname "$0")" && pwd)
root=$folder/$architecture
declare -A platforms=([amd64]=x86_64 [arm64]=aarch64)
packages=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libexpat1 zlib1g libffi8 libssl3 libbz2-1.0
    liblzma5 libgcc-s1 libstdc++6)

give_up() {
    echo "kernels: no machine to run pprofpy in: $1" >&2
    exit 1
}

if [ ! -e "$root" ]; then
    . "$here/apt.sh"
    apt_architecture=$architecture
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/.new.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/root"
    [ -n "$mirror" ] || give_up "apt knows no mirror of Debian"
    echo "deb [signed-by=$keyring] $mirror bookworm main" >"$work/sources.list"
    apt_beside "$work" update && (cd "$work" && apt_beside "$work" download "${packages[@]}") || give_up "the mirror does not give it"
    for package in "$work"/*.deb; do
        dpkg-deb --extract "$package" "$work/root"
    done
    ln -s python3.11 "$work/root/usr/bin/python3"
    mapfile -t needs < <("$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")')
    "$python" -m pip --quiet --disable-pip-version-check install --target "$work/root/usr/lib/python3/dist-packages" \
        --only-binary :all: --python-version 3.11 --platform "manylinux_2_28_${platforms[$architecture]}" \
        --platform "manylinux2014_${platforms[$architecture]}" --platform "manylinux_2_17_${platforms[$architecture]}" \
        "${needs[@]}" || give_up "the Python packages cannot be had"
    rm -rf "$work"/root/usr/share/{doc,man,locale} "$work"/root/usr/lib/python3/dist-packages/{bin,numpy/tests}
    mv -T "$work/root" "$root"
fi
echo "$root"
