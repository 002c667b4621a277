"""The first process of a pod: starts a program in a root folder of its own, and ends with it. FOLDER PYTHON WORDS...

FOLDER becomes that root. It gets the system's libraries, a Python as /opt/python, /proc and /dev; what else is in it
stays. The program sees no other file. To be started in a pid namespace of its own, by `unshare --pid --fork`.
"""

import ctypes
import os
import pathlib
import sys

NEW_MOUNTS = 0x20000
BIND, RECURSIVE, PRIVATE, READ_ONLY, REMOUNT = 4096, 16384, 1 << 18, 1, 32
SHARED = ("/usr", "/lib", "/lib64", "/dev")

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*(word.encode() if isinstance(word, str) else word for word in arguments)):
        raise OSError(ctypes.get_errno(), f"{name} {arguments}")


def enter(folder, python):
    """Make the folder our root, with these and the Python's folder in it."""
    call("unshare", NEW_MOUNTS)
    call("mount", None, "/", None, RECURSIVE | PRIVATE, None)
    for place, inside in [*((one, one) for one in SHARED), (python, "/opt/python")]:
        pathlib.Path(folder + inside).mkdir(parents=True, exist_ok=True)
        call("mount", place, folder + inside, None, BIND | RECURSIVE, None)
    pathlib.Path(folder, "proc").mkdir(exist_ok=True)
    call("mount", "proc", folder + "/proc", "proc", 0, None)
    os.chroot(folder)
    os.chdir("/")


def main(folder, python, *words):
    program = os.fork()
    if program == 0:
        enter(folder, python)
        os.execve(words[0], words, {"LD_LIBRARY_PATH": "/opt/python/lib"})
    while os.wait()[0] != program:
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
