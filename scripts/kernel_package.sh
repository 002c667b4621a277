#!/usr/bin/env bash
# Fetch one of Debian's kernels, its types (BTF) beside it, into a folder of its own; nothing is installed. Prints the
# folder, which is named after the kernel's release and holds: vmlinuz, btf.
# Usage: kernel_package.sh PYTHON VERSION ARCHITECTURE     e.g. kernel_package.sh .venv/bin/python 6.1 arm64; newest
set -euo pipefail

python=$1 version=$2 architecture=$3
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pprofpy-tests/kernels
here=$(cd "$(dirname "$0")" && pwd)

give_up() {
    echo "kernels: $1" >&2
    exit 1
}

# Which of Debian's releases has it.
case $version in
    5.10) suite=bullseye ;;
    6.1) suite=bookworm ;;
    6.12) suite=trixie ;;
    newest) suite=sid ;;
    *) give_up "no kernel $version is known here: 5.10, 6.1, 6.12, newest" ;;
esac
. "$here/apt.sh"
apt_architecture=$architecture
lists=$folder/$suite-$architecture

# The image for clouds, which is the smallest. Prints the package's name.
image_package() {
    local numbers="${version//./\\.}(\.[0-9]+)*"
    [ "$version" != newest ] || numbers="[0-9.]+"
    apt_tool_beside apt-cache "$lists" search --names-only \
        "^linux-image-$numbers(-[0-9]+|\+deb[0-9]+[a-z0-9.+-]*)-cloud-$architecture\$" |
        sed 's/ .*//' | sort --version-sort | tail -n 1
}

# From Linux 7.0 on, the image itself is in a package of another name.
packages_of() {
    local release=$1 name
    for name in "linux-image-$release" "linux-binary-$release"; do
        if [[ $(apt_tool_beside apt-cache "$lists" show "$name" 2>/dev/null) == *Version:* ]]; then
            echo "$name"
        fi
    done
}

# A mirror fails now and then.
download() {
    for _ in 1 2 3; do
        (cd "$work" && apt_beside "$lists" download "$@") && return
    done
    return 1
}

mkdir -p "$lists"
if [ ! -e "$lists/fetched" ]; then
    [ -n "$mirror" ] || give_up "apt knows no mirror of Debian"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$lists/sources.list"
    apt_beside "$lists" update || give_up "the mirror does not give the list of $suite"
    touch "$lists/fetched"
fi
package=$(image_package)
[ -n "$package" ] || give_up "$suite offers no kernel $version for $architecture"
release=${package#linux-image-}

if [ ! -e "$folder/$release/btf" ]; then
    work=$(mktemp -d "$folder/.new.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mapfile -t packages < <(packages_of "$release")
    echo "kernels: fetching Linux $release" >&2
    download "${packages[@]}" || give_up "the mirror does not give $package"
    for file in "$work"/*.deb; do
        dpkg-deb --extract "$file" "$work"
    done
    image=$(find "$work" -name 'vmlinu[zx]*' -type f | head -n 1)
    [ -n "$image" ] || give_up "$package holds no kernel"
    cp "$image" "$work/vmlinuz"
    "$python" "$here/kernel_btf.py" "$work/vmlinuz" "$work/btf"
    mkdir -p "$folder/$release"
    mv "$work/vmlinuz" "$work/btf" "$folder/$release/"
fi
echo "$folder/$release"
