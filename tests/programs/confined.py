"""Confine this process as a view that writes to a file, then try all sorts of things; print what came of each.

Arguments: the user to become, the file that the view writes, a file that it must not change; `free`: do not confine it.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from pprofpy.cli import confinement
from pprofpy.formats import files  # noqa: F401 - the user may not be able to read what is imported later
from pprofpy.system import landlock, privileges, rights, sandbox  # noqa: F401

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, EXECVE, X32 = 0x4206, 59, 0x40000000


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def opened(path, flags):
    os.close(os.open(path, flags, 0o600))


def read_other(pid, address):
    kept = ctypes.create_string_buffer(8)
    here, there = (ctypes.c_void_p * 2)(ctypes.addressof(kept), 8), (ctypes.c_void_p * 2)(address, 8)
    checked(libc.process_vm_readv(pid, here, 1, there, 1, 0))


def executed(number):
    child = os.fork()
    if not child:
        libc.syscall(number, b"/bin/true", (ctypes.c_char_p * 2)(b"true", None), None)
        os._exit(ctypes.get_errno())
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(code, "refused")


def in_thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def attempts(output, victim, other, address):
    beside, linked = output.with_name("beside"), victim.with_name("linked")
    yield "create", lambda: opened(victim.with_name("new"), os.O_WRONLY | os.O_CREAT)
    yield "write", lambda: opened(victim, os.O_WRONLY)
    yield "write-and-read", lambda: opened(victim, os.O_RDWR)
    yield "truncate", lambda: os.truncate(victim, 0)
    yield "rename", lambda: victim.rename(victim.with_name("renamed"))
    yield "back", lambda: victim.with_name("renamed").rename(victim)
    yield "mkdir", lambda: output.with_name("folder").mkdir()
    yield "symlink", lambda: output.with_name("symlink").symlink_to("x")
    yield "link", lambda: linked.hardlink_to(victim)
    yield "remove", lambda: (linked if linked.exists() else victim).unlink()
    yield "memory", lambda: opened("/proc/self/mem", os.O_RDWR)

    yield "execute", lambda: executed(EXECVE)
    yield "execute-x32", lambda: executed(X32 + 520)
    yield "inet", lambda: socket.socket(socket.AF_INET)
    yield "unix", lambda: socket.socket(socket.AF_UNIX)
    yield "ptrace", lambda: checked(libc.ptrace(PTRACE_SEIZE, other, 0, 0))
    yield "read-other", lambda: read_other(other, address)
    yield "kill", lambda: os.kill(other, 0)
    yield "bpf", lambda: checked(libc.syscall(321, 0, 0, 0))
    yield "chmod", lambda: victim.chmod(0o600)
    yield "chown", lambda: os.chown(victim, os.getuid(), os.getgid())
    yield "utime", lambda: os.utime(victim)

    yield "read", lambda: victim.read_bytes()
    yield "out-create", lambda: opened(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    yield "out-rename", lambda: output.rename(beside)
    yield "out-link", lambda: output.hardlink_to(beside)
    yield "out-remove", lambda: (beside.unlink(), output.unlink())
    yield "devnull", lambda: opened(os.devnull, os.O_WRONLY)
    yield "thread", in_thread
    yield "memory-file", lambda: os.close(os.memfd_create("x"))
    yield "print", lambda: os.write(2, b"")


def main():
    user, output, victim = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    if os.geteuid() == 0 and user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    other = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # ends with us
    address = int(Path(f"/proc/{other.pid}/maps").read_text().partition("-")[0], 16)
    if sys.argv[4:] != ["free"]:
        confinement.own_process()
        confinement.before_reading(str(output))
    found = {}
    for name, attempt in attempts(output, victim, other.pid, address):
        try:
            attempt()
            found[name] = "done"
        except OSError as error:
            found[name] = type(error).__name__
    print(json.dumps(found))


main()
