#!/usr/bin/env bash
# Build Debian trixie's Python 3.13 without a global lock, for the tests: into a folder of its own, in two to three minutes
# on two CPUs (four of CPU time). Needs gcc, make, libffi-dev and apt; nothing is installed. Prints its path. Not part of
# `make test`, which is to stay short where nothing is kept: the tests skip what it would show.
set -euo pipefail

version=3.13 release=trixie
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pprofpy-tests/python${version}t
program=$folder/bin/python${version}t

if [ -x "$program" ]; then
    echo "$program"
    exit 0
fi
. "$(dirname "$0")/apt.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/build"
echo "deb-src [signed-by=$keyring] $mirror $release main" >"$work/sources.list"
cd "$work"
apt_beside "$work" update
apt_beside "$work" source --download-only "python$version"
tar --extract --file "python$version"*.orig.tar.?z --strip-components=1 --directory build
cd build
./configure --quiet --prefix="$folder" --disable-gil --without-ensurepip --disable-test-modules \
    LDFLAGS=-Wl,--dynamic-list-data >&2
make --silent -j "$(nproc)" >&2
make --silent install >&2
if ! "$program" -c 'import ctypes, threading' >&2; then # which the tests need
    rm -rf "$folder"
    exit 1
fi
echo "$program"
