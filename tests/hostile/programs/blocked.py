"""Makes whoever reads it wait for ever: blocked.py WAY LAYOUT, the latter in JSON as pprofpy knows it.

What blocks is memory that this process serves itself and does not (userfaultfd), or a file system of its own that
answers no more (FUSE). Both need privileges here; they are given up before anybody looks.
"""

import ctypes
import errno
import json
import mmap
import os
import select
import struct
import sys
import threading
import time
from pathlib import Path

PAGE = 4096
REGISTER, API, MISSING = 0xC020AA00, 0xC018AA3F, 1
LOOKUP, FORGET, GETATTR, RELEASE, FLUSH, INIT = 1, 2, 3, 18, 25, 26
HEAD, REPLY = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
NEW_MOUNTS, PRIVATE = 0x20000, (1 << 18) | 16384

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
kept = []


def check(result):
    if result in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def word(address):
    return ctypes.c_uint64.from_address(address)


def block(address, size=PAGE):
    """Nobody gets past this memory: whoever touches it waits for an answer that never comes."""
    import fcntl

    handler = check(libc.syscall(323, os.O_CLOEXEC))
    kept.append(handler)
    fcntl.ioctl(handler, API, bytearray(struct.pack("<QQQ", 0xAA, 0, 0)))
    check(libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), 4))
    fcntl.ioctl(handler, REGISTER, bytearray(struct.pack("<QQQQ", address, size, MISSING, 0)))


def map_page(file=-1):
    flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if file < 0 else 0)
    return check(libc.mmap(None, ctypes.c_size_t(PAGE), 5 if file >= 0 else 3, flags, file, ctypes.c_long(0)))


# -- a file system ---------------------------------------------------------------------------------------------------


class FileSystem:
    """A folder `dead` in which every name is a file; it answers until `die`."""

    def __init__(self, user):
        self.is_dead = False
        Path("dead").mkdir()
        self.device = os.open("/dev/fuse", os.O_RDWR)
        check(libc.unshare(NEW_MOUNTS))
        check(libc.mount(None, b"/", None, PRIVATE, None))
        options = f"fd={self.device},rootmode=40000,user_id={user},group_id={os.getgid()},allow_other"
        check(libc.mount(b"dead", bytes(Path("dead").resolve()), b"fuse", 0, options.encode()))
        self.server = threading.Thread(target=self.serve)
        self.server.start()

    def die(self):
        """Take no request any more: from one that was taken not even SIGKILL would free who waits for its answer."""
        self.is_dead = True
        self.server.join()

    def serve(self):
        while not self.is_dead:
            if not select.select([self.device], [], [], 0.05)[0]:
                continue
            _, kind, unique, node, *_ = HEAD.unpack_from(os.read(self.device, 1 << 18))
            reply = self.reply(kind, node)
            if reply is not None:
                error = -errno.ENOSYS if kind == FLUSH else 0
                os.write(self.device, REPLY.pack(REPLY.size + len(reply), error, unique) + reply)

    def reply(self, kind, node):
        if kind == INIT:
            return struct.pack("<IIIIHHIIHHI32x", 7, 31, PAGE, 0, 0, 0, PAGE, 1, 1, 0, 0)[:64].ljust(64, b"\0")
        if kind == LOOKUP:
            return struct.pack("<QQQQII", 2, 1, 0, 0, 0, 0) + self.about(2)
        if kind == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self.about(node)
        if kind in (FORGET, RELEASE):
            return None
        return b"" if kind == FLUSH else struct.pack("<QII", 0, 0, 0)

    def about(self, node):
        mode = 0o40755 if node == 1 else 0o100755
        return struct.pack("<6Q10I", node, 1 << 20, 0, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, PAGE, 0)


def dead_file(name="data", user=0):
    system = FileSystem(user)
    file = os.open(f"dead/{name}", os.O_RDONLY)
    page = map_page(file)
    os.close(os.dup(file))  # is flushed, which is refused, so that it is never tried again: nothing could end the wait
    system.die()
    kept.append(system)
    return file, page


# -- what is read ----------------------------------------------------------------------------------------------------


def forge(page):
    layout = json.loads(sys.argv[2])
    runtime = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    word(runtime + layout["interpreters_head"]).value = page


def burn():
    while True:
        bytearray(100_000)
        time.sleep(0.0001)


def memory():
    """The list of its interpreters leads to memory that blocks."""
    page = map_page()
    block(page)
    forge(page)
    return burn


def file_memory():
    """It leads to a page of a file that cannot be read."""
    forge(dead_file()[1])
    return burn


def library():
    """A library of Python's lies on a file system that does not answer."""
    dead_file("libpython3.11.so")
    return burn


def others():
    """The same, on one that another user serves: nothing must be asked of it."""
    dead_file("libpython3.11.so", os.getuid())
    return burn


def source():
    """The file of its functions does."""
    dead_file()
    burn.__code__ = burn.__code__.replace(co_filename=f"{Path.cwd()}/dead/source.py")
    return burn


def descriptor():
    """It waits for an answer itself, to a read."""
    file, _ = dead_file()
    threading.Thread(target=os.read, args=(file, 10), daemon=True).start()
    return burn


def give_up():
    check(libc.prctl(47, 4, 0, 0, 0))  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
    check(libc.capset(struct.pack("<Ii", 0x20080522, 0), bytes(24)))
    check(libc.prctl(4, 1, 0, 0, 0))  # PR_SET_DUMPABLE: a plain process again


try:
    function = globals()[sys.argv[1]]()
except (OSError, FileNotFoundError) as error:
    print(f"nothing can be made to block here: {error}", flush=True)
    sys.exit(0)
give_up()
print("ready", flush=True)
function()
