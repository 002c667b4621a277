#!/usr/bin/env bash
# Fetch the Python of Debian's unstable release, which is newer than what systems have, for the tests: into a folder of
# its own, with the C library that it needs. Nothing is installed. Prints its path; fails, in words, where it can't be had.
# Usage: fetch_python.sh VERSION
set -euo pipefail

version=$1
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pprofpy-tests/python$version
packages=("python$version-minimal" "libpython$version-minimal" "libpython$version-stdlib" libc6 libexpat1 zlib1g libffi8 libssl3t64 libzstd1)

give_up() {
    echo "setup: Python $version for the tests can't be had: $1; tests with it are skipped" >&2
    exit 1
}

# Starts the program with its own C library. --argv0: for it to start itself again in the same way.
write_starter() {
    local library=$folder/usr/lib/x86_64-linux-gnu
    mv "$work/root/usr/bin/python$version" "$work/root/usr/lib/python$version/python$version"
    cat >"$work/root/usr/bin/python$version" <<END
#!/bin/sh
exec "$library/ld-linux-x86-64.so.2" --argv0 "$folder/usr/bin/python$version" --library-path "$library" \\
    "$folder/usr/lib/python$version/python$version" "\$@"
END
    chmod +x "$work/root/usr/bin/python$version"
}

if [ -x "$folder/usr/bin/python$version" ] && [ -e "$folder/usr/lib/x86_64-linux-gnu/libssl.so.3" ]; then
    echo "$folder/usr/bin/python$version"
    exit 0
fi
[ "$(uname -m)" = x86_64 ] || give_up "this is no x86-64 machine"
command -v apt-get dpkg-deb >/dev/null || give_up "there is no apt-get"
. "$(dirname "$0")/apt.sh"
[ -n "$mirror" ] || give_up "apt knows no mirror of Debian"

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root"
echo "deb [signed-by=$keyring] $mirror unstable main" >"$work/sources.list"
echo "setup: fetching Python $version for the tests" >&2
apt_beside "$work" update && (cd "$work" && apt_beside "$work" download "${packages[@]}") || give_up "the mirror does not give it"
for package in "$work"/*.deb; do
    dpkg-deb --extract "$package" "$work/root"
done
write_starter
rm -rf "$folder" # of an earlier release of this script, if anything
mv -T "$work/root" "$folder" || give_up "somebody else is fetching it"
if ! "$folder/usr/bin/python$version" -c 'import ctypes, ssl, threading' >&2; then
    rm -rf "$folder"
    give_up "it does not run here"
fi
echo "$folder/usr/bin/python$version"
