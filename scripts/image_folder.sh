#!/usr/bin/env bash
# Make what the Dockerfile makes, as a root folder and without Docker: a bare Debian, in it scripts/image.sh and the wheels
# of dist/. Root. Packages come from where this machine's own come from. Usage: image_folder.sh FOLDER
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
release=$(sed -n 's/^FROM debian:\([0-9]*\)-slim$/\1/p' "$here/Dockerfile")
. "$here/scripts/apt.sh"
ls "$here"/dist/*.whl >/dev/null 2>&1 || { echo "image: there is no wheel: make wheel" >&2; exit 1; }
declare -A names=([12]=bookworm [13]=trixie)

new=$folder.new
rm -rf "$new"
mkdir -p "$(dirname "$folder")"
mmdebstrap --quiet --mode=root --variant=minbase --keyring="$keyring" "${names[$release]}" "$new" "$mirror"
trap 'rm -rf "$new"' EXIT
mkdir -p "$new/tmp/pprofpy"
cp "$here/scripts/image.sh" "$here"/dist/*.whl "$new/tmp/pprofpy"
# While it is built only: how the network is reached here, where pip finds packages, and whom it trusts.
cp /etc/ssl/certs/ca-certificates.crt "$new/tmp/pprofpy/trusted.crt"
export PIP_CERT=/tmp/pprofpy/trusted.crt
unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR
inside='
mount --bind /etc/resolv.conf "$1/etc/resolv.conf" 2>/dev/null || cp /etc/resolv.conf "$1/etc/resolv.conf"
mount -t proc proc "$1/proc"
[ ! -f /etc/pip.conf ] || { : >"$1/etc/pip.conf"; mount --bind /etc/pip.conf "$1/etc/pip.conf"; }
chroot "$1" /tmp/pprofpy/image.sh /tmp/pprofpy
'
unshare --mount --propagation private bash -euc "$inside" image "$new"
rm -rf "$new/tmp/pprofpy" "$new/etc/pip.conf"
rm -rf "$folder"
mv "$new" "$folder"
trap - EXIT
echo "image: $folder ($(du -sh "$folder" | cut -f1))"
