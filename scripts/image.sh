#!/bin/sh
# Install pprofpy's wheel into a bare Debian 12, as root there: for the Dockerfile and `make image`.
# Usage: image.sh FOLDER     with the wheels; the one for this machine is taken
set -eu

folder=$1
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
apt-get install --quiet --quiet --yes --no-install-recommends python3 python3-venv
python3 -m venv /opt/pprofpy
/opt/pprofpy/bin/pip install --quiet --no-cache-dir --disable-pip-version-check "$folder"/pprofpy-*-manylinux*"$(uname -m)"*.whl
ln -sf /opt/pprofpy/bin/pprofpy /usr/local/bin/pprofpy
mkdir -p -m 0700 /profiles
apt-get clean
rm -rf /var/lib/apt/lists/*
