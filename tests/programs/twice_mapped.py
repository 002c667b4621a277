"""Has a second copy of an interpreter's file mapped, and waits for ever; prints `ready` first.

twice_mapped.py nothing
twice_mapped.py read            its own interpreter's file, mapped to be read, as symbolizers do
twice_mapped.py load PATH       another library, loaded beside
twice_mapped.py initialize PATH and initialized: two interpreters are in use
"""

import ctypes
import mmap
import os
import re
import sys
import time
from pathlib import Path


def own_file():
    libraries = re.findall(r"/\S+/libpython3\.\d\S+", Path("/proc/self/maps").read_text())
    return Path(libraries[0]) if libraries else Path("/proc/self/exe")


def wait_for_ever():
    time.sleep(3600)


kept = []
mode = sys.argv[1]
if mode == "read":
    with own_file().open("rb") as file:
        kept.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
elif mode in ("load", "initialize"):
    kept.append(ctypes.CDLL(sys.argv[2], mode=os.RTLD_NOW | os.RTLD_DEEPBIND))
    if mode == "initialize":
        os.environ["PYTHONHOME"] = sys.base_prefix
        kept[0].Py_InitializeEx(0)
print("ready", flush=True)
wait_for_ever()
