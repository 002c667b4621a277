#!/usr/bin/env bash
# Run a command as on a machine without bcc, LLVM and compilers: they are hidden in a mount namespace of its own. Root.
# Usage: without_bcc.sh COMMAND [ARGUMENT ...]
set -euo pipefail

exec unshare --mount --propagation private bash -euc '
for folder in /usr/lib/python3/dist-packages/bcc /usr/lib/llvm-*; do
    [ ! -d "$folder" ] || mount -t tmpfs tmpfs "$folder"
done
for file in /usr/lib/*/libbcc.so* /usr/lib/*/libLLVM* /usr/bin/*gcc* /usr/bin/cc /usr/bin/c++ /usr/bin/clang*; do
    [ ! -f "$file" ] || mount --bind /dev/null "$file"
done
exec "$@"
' hide "$@"
