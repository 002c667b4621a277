#!/usr/bin/env bash
# Fetch a package from PyPI for a Python of a version, for the tests, into a folder of its own; prints that folder's path.
# Nothing is installed. Usage: fetch_package.sh VERSION PACKAGE, for instance fetch_package.sh 3.12 uvloop
set -euo pipefail

version=$1 package=$2
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pprofpy-tests/packages/$package-$version
python=${PYTHON:-$(dirname "$0")/../.venv/bin/python}

if [ ! -d "$folder" ]; then
    mkdir -p "$(dirname "$folder")"
    work=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    "$python" -m pip install --quiet --disable-pip-version-check --target "$work/there" --no-deps --only-binary :all: \
        --implementation cp --python-version "$version" "$package" >&2
    mv -T "$work/there" "$folder" || [ -d "$folder" ] # another one may have been faster
fi
echo "$folder"
