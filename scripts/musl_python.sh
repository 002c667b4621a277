#!/usr/bin/env bash
# Build Debian's Python against musl, for the tests of attaching: into a folder of its own, in some minutes. Needs gcc,
# make and apt; nothing is installed. Prints its path. Not part of CI: the tests skip what it would show.
set -euo pipefail

version=3.11
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pprofpy-tests/python$version-musl
program=$folder/bin/python$version-musl

if [ -x "$program" ]; then
    echo "$program"
    exit 0
fi
. "$(dirname "$0")/apt.sh"
release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/musl" "$work/build"
printf '%s [signed-by=%s] %s %s main\n' deb $keyring "$mirror" "$release" deb-src $keyring "$mirror" "$release" \
    >"$work/sources.list"
cd "$work"
apt_beside "$work" update
apt_beside "$work" download musl musl-dev
apt_beside "$work" source --download-only "python$version"
for package in *.deb; do
    dpkg-deb --extract "$package" musl
done
tar --extract --file "python$version"*.orig.tar.* --strip-components=1 --directory build

# What musl-gcc of musl-tools does, with our copy: only musl's headers and libraries, and its loader.
library=$folder/musl
mkdir -p "$library"
cp -a musl/usr/lib/x86_64-linux-musl "$library/lib"
cp -a musl/lib/x86_64-linux-musl/libc.so "$library/lib/"
cp -a musl/usr/include/x86_64-linux-musl "$library/include"
sed -e "s|/usr/lib/x86_64-linux-musl|$library/lib|g" -e "s|/usr/include/x86_64-linux-musl|$library/include|g" \
    -e "s|/lib/ld-musl-x86_64.so.1|$library/lib/libc.so|g" musl/usr/lib/x86_64-linux-musl/musl-gcc.specs \
    >"$library/gcc.specs"
# Python's build names the system's folders by itself: they are glibc's.
cat >"$library/gcc" <<END
#!/bin/sh
for word; do
    shift
    case \$word in
    -print-multiarch | --print-multiarch) exit ;;
    -I/usr/* | -L/usr/* | -L/lib*) ;;
    *) set -- "\$@" "\$word" ;;
    esac
done
exec gcc -specs "$library/gcc.specs" "\$@"
END
chmod +x "$library/gcc"
cd build
./configure --quiet --prefix="$folder" --without-ensurepip --disable-test-modules \
    CC="$library/gcc" LDFLAGS=-Wl,--dynamic-list-data >&2
make --silent -j "$(nproc)" >&2
make --silent install >&2
ln -s "python$version" "$program"
echo "$program"
