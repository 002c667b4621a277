"""Changes what pprofpy's agent does in it, and forges what it says: MODE [VICTIM]."""

import marshal
import os
import posix
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

mode, victim = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
memfd_create, dumps = posix.memfd_create, marshal.dumps


def forge_opening(**forged):
    """Have the agent say something else when it opens the control file."""

    def dump(data, *version):
        if type(data) is tuple and len(data) == 6 and data[0] is False:
            is_busy, file, inode, tracing, *others = data
            said = {"fd": file, "inode": inode, "tracing": tracing, **forged}
            data = (is_busy, *said.values(), *others)
        elif type(data) is dict and "fd" in data:
            data = dict(data, **forged)
        return dumps(data, *version)

    marshal.dumps = dump


def forge_answers(answer):
    marshal.dumps = lambda data, *version: answer


def forge_file(make):
    """Have the agent take another file for its control file."""
    posix.memfd_create = os.memfd_create = lambda *_: make()


def changed(change):
    """A control file that somebody changes whenever it is written to."""
    pwrite = posix.pwrite

    def write(file, content, at):
        done = pwrite(file, content, at)
        change(file)
        return done

    posix.pwrite = os.pwrite = write


def race():
    """Take turns in all that can be done to a control file while it is in use: from a thread, and from children."""
    pipe, others = os.pipe(), os.open(victim, os.O_PATH)
    own = named()
    os.write(own, bytes(1 << 16))
    while True:
        for link in Path("/proc/self/fd").iterdir():
            try:
                if "memfd:pprofpy" not in str(link.readlink()):
                    continue
                number = int(link.name)
                for size in (0, 7, 1 << 40, 1 << 16):
                    with suppress(OSError):  # it may be sealed
                        os.ftruncate(number, size)
                kept_file = os.dup(number)
                for other in (own, others, pipe[0], kept_file):
                    os.dup2(other, number)
                os.close(kept_file)
                if not os.fork():
                    with suppress(OSError):
                        os.ftruncate(number, 3)
                    os._exit(0)
                os.waitpid(-1, 0)
            except OSError:
                pass
        time.sleep(0.0005)


def named():
    return os.open("named", os.O_RDWR | os.O_CREAT, 0o600)


if mode == "path":
    forge_opening(fd="../../../.." + victim)
elif mode == "number":
    forge_opening(fd=1 << 40)
elif mode == "negative":
    forge_opening(fd=-1)
elif mode == "inode":
    forge_opening(inode=3)
elif mode == "frames":
    forge_opening(tracing=1 << 62)
elif mode == "path_only":  # of another user's file, good for no more than to name it
    file = os.open(victim, os.O_PATH)
    forge_file(lambda: os.dup(file))
elif mode == "named":
    forge_file(named)
elif mode == "fifo":
    forge_file(lambda: os.pipe()[0])
elif mode == "device":
    forge_file(lambda: os.open("/dev/zero", os.O_RDWR))
elif mode == "five_bytes":
    forge_answers(b"[\xff\xff\xff\x7f")
elif mode == "nested":
    forge_answers(b"[\1\0\0\0" * 100_000 + b"N")
elif mode == "itself":
    forge_answers(b"\xdb\1\0\0\0r\0\0\0\0")
elif mode == "long":
    forge_answers(b"i\0\0\0\0" * 40_000_000)
elif mode == "text":
    marshal.dumps = lambda data, *version: "\udcff" * 1000
elif mode == "raises":

    def raises(*_):
        raise RuntimeError("\x1b[31m" + "x" * 1_000_000)

    marshal.dumps = raises
elif mode == "no_end":
    changed(lambda file: os.ftruncate(file, 1 << 42))
elif mode == "zeros":
    changed(lambda file: os.ftruncate(file, 1 << 29))
elif mode == "race":
    threading.Thread(target=race, daemon=True).start()
elif mode == "cut":
    changed(lambda file: os.ftruncate(file, 40))

kept = []
print("ready", flush=True)
while True:
    kept.append(bytearray(100_000))
    del kept[:-100]
    time.sleep(0.001)
