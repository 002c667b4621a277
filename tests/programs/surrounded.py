"""Makes its surroundings hard for those who want to enter it, then runs a program there: NAME FOLDER [PROGRAM].

Without a program it ends with status 0, if such surroundings can be made here.
"""

import array  # noqa: F401 - what the programs import, as no library can be loaded any more afterwards
import ctypes
import os
import pathlib
import runpy
import sys
import threading  # noqa: F401
import traceback  # noqa: F401

NEW_MOUNTS = 0x20000
READ_ONLY, NO_CODE, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 8, 32, 4096, 16384, 1 << 18
DETACH = 2
SET_DUMPABLE = 4

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*(word.encode() if isinstance(word, str) else word for word in arguments)):
        raise OSError(ctypes.get_errno(), name)


def root_without_proc(folder):
    call("unshare", NEW_MOUNTS)
    call("mount", None, "/", None, RECURSIVE | PRIVATE, None)
    call("mount", "/", folder, None, BIND | RECURSIVE, None)
    call("umount2", folder + "/proc", DETACH)
    os.chroot(folder)


def no_code_and_nothing_to_write(_):
    call("unshare", NEW_MOUNTS)
    call("mount", None, "/", None, RECURSIVE | PRIVATE, None)
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        libc.mount(None, line.split()[4].encode(), None, REMOUNT | BIND | READ_ONLY | NO_CODE, None)
    if any(os.access(place, os.W_OK) for place in ("/", "/tmp", "/dev/shm", "/var/tmp")):
        raise OSError("there is still a folder to write to")


def another_user(_):
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def not_dumpable(_):
    call("prctl", SET_DUMPABLE, 0, 0, 0, 0)


globals()[sys.argv[1]](sys.argv[2])
if len(sys.argv) > 3:
    runpy.run_path(sys.argv[3], run_name="__main__")
