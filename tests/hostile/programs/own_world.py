"""Makes namespaces of its own and lies in them: other files lie over its interpreter, its libraries and /proc.

Usage: own_world.py. Needs user namespaces; says `no user namespaces` where there are none.
"""

import ctypes
import mmap  # noqa: F401 - loaded before its file is hidden
import os
import sys
import time
from pathlib import Path

NEW_USER, NEW_MOUNTS, NEW_UTS = 0x10000000, 0x20000, 0x4000000
BIND, RECURSIVE, PRIVATE = 4096, 16384, 1 << 18
libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*(word.encode() if isinstance(word, str) else word for word in arguments)):
        raise OSError(ctypes.get_errno(), name)


uid = os.getuid()
try:
    call("unshare", NEW_USER | NEW_MOUNTS | NEW_UTS)
except OSError:
    print("no user namespaces", flush=True)
    sys.exit(0)
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {uid} 1")):
    Path(f"/proc/self/{name}").write_text(text)
call("mount", None, "/", None, RECURSIVE | PRIVATE, None)
os.mkfifo("fifo")
with Path("sparse").open("wb") as file:
    file.truncate(8 << 40)
mapped = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
lies = [path for path in sorted(mapped) if path.startswith("/")]
for number, path in enumerate(lies):
    call("mount", ("fifo", "sparse")[number % 2], path, None, BIND, None)
call("mount", "none", "/tmp", "tmpfs", 0, None)
call("mount", "none", "/proc", "tmpfs", 0, None)
Path(f"/proc/{os.getpid()}").mkdir()
os.mkfifo("/proc/self")
print("ready", flush=True)
while True:
    kept = [bytes(1000) for _ in range(1000)]
    time.sleep(0.001)
