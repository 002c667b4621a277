#!/usr/bin/env bash
# Build Debian trixie's Python 3.13 without a global lock, for the tests: into a folder of its own, in some minutes. Needs
# gcc, make and apt; nothing is installed. Prints its path. Not part of CI: the tests skip what it would show.
set -euo pipefail

version=3.13 release=trixie
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pprofpy-tests/python${version}t
program=$folder/bin/python${version}t

if [ -x "$program" ]; then
    echo "$program"
    exit 0
fi
mirror=$(apt-get --print-uris update 2>/dev/null | sed -n "s|^'\(https\?://[^']*/debian\)/dists/.*|\1|p" | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,archives}/partial "$work/build"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb-src [signed-by=$keyring] $mirror $release main" >"$work/sources.list"
apt() {
    apt-get --quiet --quiet -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root "$@" >&2
}
cd "$work"
apt update
apt source --download-only "python$version"
tar --extract --file "python$version"*.orig.tar.?z --strip-components=1 --directory build
cd build
./configure --quiet --prefix="$folder" --disable-gil --without-ensurepip --disable-test-modules \
    LDFLAGS=-Wl,--dynamic-list-data >&2
make --silent -j "$(nproc)" >&2
make --silent install >&2
echo "$program"
