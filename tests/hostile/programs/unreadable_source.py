"""A program whose code says that it comes from files that only root may read.

Arguments: a folder with a package, and `hidden`: the program forbids others to inspect it, and its folder in /proc
becomes root's.
"""

import ctypes
import sys
import time

PR_SET_DUMPABLE = 4

folder, *words = sys.argv[1:]
source = "def allocate():\n    return [bytes(100) for _ in range(1000)]\n"
names = {}
exec(compile(source, f"{folder}/package/secret.py", "exec"), names)
if words == ["hidden"]:
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
print("ready", flush=True)
while True:
    kept = names["allocate"]()
    time.sleep(0.01)
