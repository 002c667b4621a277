"""What `pprofpy heap` runs inside the target: starts, reads and stops an engine.

This is sent as text into a process that knows nothing of pprofpy: all that an engine needs is one file because nothing
can be imported there. `holders.py`, which stands for itself, is sent along. It must work in Python 3.8 and later, need
nothing from disk (only modules that are built into every interpreter), run no code of the program's own (no `__repr__`,
no property), and never raise in its threads.

The control file has no name; pprofpy opens it through /proc/PID/fd, to read only, and holds a lock on it for as long as
it lives. Data for pprofpy go through it. When the lock is gone, what was started is stopped.

Annotations are texts: `from __future__ import annotations` would load a module.
"""

import _thread
import atexit
import gc
import marshal
import posix as os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # the target may not have it, and shall not get it from us
    from typing import Any

    from pprofpy.collectors.heapagent.holders import biggest_types

MARSHAL_VERSION = 4  # what pprofpy reads; 3.14 would write another one
PLAIN_MARSHAL_VERSION = 2  # each short number takes the same number of bytes
CHUNK = 50_000
PROGRESS_BYTES = 16
LENGTH_BYTES = 8
LONGEST_NAME = 4096
LONGEST_REPORT = 65536
WATCH_PERIOD_S = 0.2
OPENING_S = 2.0  # so long pprofpy may take to lock a new control file
DRAIN_S = 0.1
NOT_TO_BE_EXECUTED = 8  # MFD_NOEXEC_SEAL: some kernels demand it (vm.memfd_noexec), older ones do not know it
CAN_BE_SEALED = 2  # MFD_ALLOW_SEALING
ADD_SEALS, ALL_SEALS = 1033, 15  # F_ADD_SEALS; no more seals, not shorter, not longer, not written to
SAMPLER = "_pprofpy_sampler"
FOLDERS = ("/dev/shm", "/tmp", "/var/tmp")  # noqa: S108 - a file has no name there, or one that nobody can guess
UNKNOWN_LAYOUT = "the layout of this Python's frames is not known"

# The session of the pprofpy that is at it: its control file, and what it has started. Each has a dictionary of its own,
# so that those who still look after an earlier one do not touch it.
state: "dict[str, Any]" = {"session": {"pid": 0, "engine": ""}, "knows_forks": False}


# -- the control file ----------------------------------------------------------------------------------------------


def anonymous_file() -> int:
    """The descriptor of a new file without a name, in memory where possible."""
    for flags in NOT_TO_BE_EXECUTED, 0:
        try:
            return os.memfd_create("pprofpy", os.MFD_CLOEXEC | CAN_BE_SEALED | flags)
        except (AttributeError, OSError):
            pass
    for folder in FOLDERS:
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            pass
    raise RuntimeError("no folder for a file without a name")


def is_open(session: "dict[str, Any]") -> bool:
    """Is the control file's descriptor still ours? Some programs close what they do not know."""
    try:
        return bool(os.fstat(session["fd"]).st_ino == session["inode"])
    except (KeyError, OSError):
        return False


def owner_lives(session: "dict[str, Any]") -> bool:
    """Does a pprofpy hold its lock, or is it still about to take it?

    It is a lock for readers, which only somebody who tries to lock for writing meets.
    """
    try:
        if is_open(session):
            os.lseek(session["fd"], 0, 0)
            os.lockf(session["fd"], os.F_TLOCK, 1)
            os.lockf(session["fd"], os.F_ULOCK, 1)
            return bool(time.monotonic() < session["deadline"])
    except (BlockingIOError, PermissionError):
        session["deadline"] = 0.0
        return True
    except (KeyError, OSError):
        pass
    return False


def open_control() -> "tuple[bool, int, int, int, bool, bool]":
    """Make the control file, unless somebody else uses one, and watch over it.

    Returns:
        What pprofpy needs to know before it chooses an engine: is somebody else at it; the file's descriptor and inode;
        how many frames tracemalloc keeps; is there a global lock; is the C library glibc?
    """
    session = state["session"]
    is_mine = session["pid"] == os.getpid()  # else we are the child of a fork
    if sampler_is_busy() or (is_mine and (session["engine"] == "tracing" or owner_lives(session))):
        return True, -1, 0, 0, False, False
    close_control(session)
    if not state["knows_forks"]:
        os.register_at_fork(after_in_child=in_child)
        state["knows_forks"] = True
    fd = anonymous_file()
    inode = os.fstat(fd).st_ino
    state["session"] = session = {"fd": fd, "inode": inode, "pid": os.getpid(), "engine": "", "threads": []}
    session["deadline"], session["is_over"] = time.monotonic() + OPENING_S, False
    try:
        _thread.start_new_thread(watch, (session,))
        session["is_watched"] = True
    except RuntimeError:  # Python 3.12 starts none once the main thread has ended, although others go on
        session["is_watched"] = False
    return False, fd, inode, is_tracing(), not is_free_threaded(), has_glibc()


def is_free_threaded() -> bool:
    """Is it a build without a global lock? It has other structures, even with its lock switched on."""
    return "t" in sys.abiflags or "free-threading" in sys.version


def has_glibc() -> bool:
    """Is that the C library? Else it is musl."""
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        return False


def close_control(session: "dict[str, Any]") -> None:
    """Close the control file, unless its descriptor has become another's."""
    if is_open(session):
        fd = session.pop("fd", -1)  # of two who come here at once, only one gets it
        if fd >= 0:
            os.close(fd)


def say(data: "Any") -> None:
    """Make `data` the content of the control file."""
    put(data, begin_to_say())


def begin_to_say() -> int:
    """Empty the control file. It begins with two numbers of 8 bytes: how much is done, of how much. Pieces follow."""
    os.ftruncate(state["session"]["fd"], 0)
    os.ftruncate(state["session"]["fd"], PROGRESS_BYTES)
    return PROGRESS_BYTES


def put(data: "Any", at: int, version: int = MARSHAL_VERSION) -> int:
    """Put a piece into the control file, after its length; returns where the next one goes."""
    content = marshal.dumps(data, version)
    at += write(state["session"]["fd"], len(content).to_bytes(LENGTH_BYTES, "little"), at)
    return at + write(state["session"]["fd"], content, at)


def drop() -> None:
    """Empty the control file: pprofpy has read it."""
    note_own_thread(state["session"])
    os.ftruncate(state["session"]["fd"], 0)


def write(fd: int, content: bytes, at: int) -> int:
    """Put all of it into a file; returns its length."""
    done = 0
    while done < len(content):
        done += os.pwrite(fd, content[done:], at + done)
    return done


def begin(engine: str) -> None:
    """Note what is running, and be there when the program ends: its last words would be lost."""
    state["session"]["engine"] = engine
    atexit.register(at_exit)


def end(session: "Any" = None) -> None:
    """Stop the tracing that this session has started, if it did."""
    session = session or state["session"]
    engine, session["engine"] = session["engine"], ""
    if session is state["session"]:
        atexit.unregister(at_exit)
    if engine == "tracing":
        stop_tracing()


def at_exit() -> None:
    """The program ends: leave in the control file what there is. pprofpy has it open, too."""
    session = state["session"]
    try:
        if session["pid"] == os.getpid() and owner_lives(session):
            if session["engine"] == "sampling":
                put_samples()
            elif session["engine"]:
                read_traces(False)
    except Exception:  # it is not our program
        session["engine"] = ""


def in_child() -> None:
    """The child of a fork: nobody would stop the tracing here. (The sampler is off: it has noticed by itself.)"""
    end()
    close_control(state["session"])


def watch(session: "dict[str, Any]") -> None:
    """Stop and close everything when pprofpy lets go, however far it has come. The sampler has a watch of its own."""
    note_own_thread(session)
    while owner_lives(session):
        time.sleep(WATCH_PERIOD_S)
        if session["engine"] == "sampling":
            return
    session["is_over"] = True
    end(session)
    close_control(session)


# -- the sampler ---------------------------------------------------------------------------------------------------


def sampler_is_busy() -> bool:
    """Is it on, or are its tables still there?"""
    sampler = sys.modules.get(SAMPLER)
    return sampler is not None and any(sampler.state()[:2])


def load_sampler(library: bytes) -> "Any":
    """Load this library; it stays loaded for good.

    Raises:
        ImportError: There is no way to load it, or this build's objects are not what it is made for.
    """
    if is_free_threaded():
        raise ImportError("a build without a global lock has other objects")
    make_spec = sys.modules["_frozen_importlib"].ModuleSpec
    make_loader = sys.modules["_frozen_importlib_external"].ExtensionFileLoader
    reason = ImportError("no folder to load it from")
    for path in paths_of(library):
        try:
            loader = make_loader(SAMPLER, path)
            module = loader.create_module(make_spec(SAMPLER, loader, origin=path))
            loader.exec_module(module)
        except ImportError as error:
            reason = error
        else:
            sys.modules[SAMPLER] = module
            return module
    raise reason


def seal(fd: int) -> bool:
    """Have the kernel keep a file in memory as it is: if it is cut short later, all that is mapped from it kills.

    False where that is not possible: in a folder, or in a program that has not loaded `fcntl` (none is loaded for it).
    """
    fcntl = sys.modules.get("fcntl")
    if fcntl is None and "fcntl" in sys.builtin_module_names:
        import fcntl
    try:
        return fcntl is not None and fcntl.fcntl(fd, ADD_SEALS, ALL_SEALS) == 0
    except OSError:
        return False


def paths_of(content: bytes) -> "Any":
    """Paths to files with this content, one after the other; each is gone after its turn.

    One without a name comes first. But it has a path only where /proc is mounted; and a folder may forbid code.
    """
    fd = anonymous_file()
    try:
        write(fd, content, 0)
        if seal(fd) and os.pread(fd, len(content) + 1, 0) != content:
            raise ImportError("somebody writes to the file that it is loaded from")
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
    for folder in FOLDERS:
        path = folder + "/.pprofpy-" + os.urandom(8).hex()
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
        try:
            write(fd, content, 0)
            yield path
        finally:
            os.close(fd)
            os.unlink(path)


def start_sampling(library: bytes, rate_bytes: float, frames: int) -> "tuple[bool]":
    """Load the sampler if it is not there yet, check that it reads stacks as they are, and switch it on.

    Returns:
        Are NumPy's arrays counted, if there are any?
    """
    sampler: Any = sys.modules.get(SAMPLER) or load_sampler(library)
    sampler.open(state["session"]["fd"])
    check_stacks(sampler)
    drop()
    sampler.start(rate_bytes, frames)
    begin("sampling")
    return (hook_numpy(sampler),)


def check_stacks(sampler: "Any") -> None:
    """Compare what the sampler sees with what the interpreter says: through calls from C, and out of a generator."""

    def compare(_: int = 0) -> int:
        seen, frame = sampler.walk(), sys._getframe()
        if seen[0][0] is not frame.f_code:
            raise RuntimeError(UNKNOWN_LAYOUT)
        for code, line in seen[1:]:
            frame = frame.f_back  # type: ignore[assignment]  # checked in the next line
            if frame is None or code is not frame.f_code or line != frame.f_lineno:
                raise RuntimeError(UNKNOWN_LAYOUT)
        if frame.f_back is not None:
            raise RuntimeError(UNKNOWN_LAYOUT)
        return 0

    def generate() -> "Any":
        yield compare()

    max([1, 2], key=compare)
    list(map(compare, [1]))
    next(generate())


def hook_numpy(sampler: "Any") -> bool:
    """Have the data of arrays counted, too; False if this NumPy is not known."""
    for name in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):
        module = sys.modules.get(name)
        if module is not None and "_ARRAY_API" in module.__dict__:
            return bool(sampler.use_numpy(module.__dict__["_ARRAY_API"]))
    return True


def read_sampler(collect: bool) -> None:
    """Put the samples so far into the control file."""
    if collect:
        gc.collect()
    note_own_thread(state["session"])
    put_samples()


def put_samples() -> None:
    """The same, from one of the program's own threads."""
    sampler: Any = sys.modules[SAMPLER]
    ignore_thread = getattr(sampler, "ignore_thread", None) or sampler.hush  # an earlier pprofpy's may be loaded
    ignore_thread(1)
    try:
        places, stacks, frames, cells, counters, is_hooked = sampler.read()
        codes: list[tuple[str, str, int]] = []
        numbers: dict[int, int] = {}
        lines = []
        for code, line in places:
            number = numbers.get(id(code))
            if number is None:
                number = numbers[id(code)] = len(codes)
                name = getattr(code, "co_qualname", code.co_name)
                codes.append((code.co_filename[:LONGEST_NAME], name[:LONGEST_NAME], code.co_firstlineno))
            lines.append((number, line))
        own = [(tid,) for tid in state["session"]["threads"]]
        say((codes, lines, stacks, frames, cells, counters, is_hooked, thread_names(), own))
    finally:
        ignore_thread(0)


def note_own_thread(session: "dict[str, Any]") -> None:
    """Code of ours runs in a new thread each time: what that allocated before it was ignored is not the program's."""
    session["threads"].append(_thread.get_native_id())


def thread_names() -> "list[tuple[int, str]]":
    """(Thread id of the kernel, name) of the threads that the threading module knows."""
    threading = sys.modules.get("threading")
    names = []
    for thread in list(getattr(threading, "_active", {}).values()):
        fields = object.__getattribute__(thread, "__dict__")
        if type(fields.get("_native_id")) is int and type(fields.get("_name")) is str:
            names.append((fields["_native_id"], fields["_name"][:LONGEST_NAME]))
    return names


def stop_sampling() -> None:
    """Switch it off; its tables go when pprofpy lets go of the control file."""
    end()
    sampler: Any = sys.modules[SAMPLER]
    sampler.stop()


# -- tracemalloc ---------------------------------------------------------------------------------------------------


def is_tracing() -> int:
    """0, or how many frames tracemalloc keeps of each stack."""
    import _tracemalloc  # built into the interpreter; `-X tracemalloc` does not import it

    return _tracemalloc.get_traceback_limit() if _tracemalloc.is_tracing() else 0


def trace(frames: int) -> None:
    """Switch tracemalloc on, and note what the allocators were before."""
    import _tracemalloc

    sampler: Any = sys.modules.get(SAMPLER)
    if sampler:
        sampler.save_allocators()
    _tracemalloc.start(frames)


def stop_tracing() -> None:
    """Switch tracemalloc off, as no thread is inside it any more.

    Before 3.12.9 and 3.13.2, `stop()` frees tables that are in use by threads which wait for the interpreter's lock in
    an allocation: new threads do. So the allocators are put back first, and such threads get time to leave.

    Source: https://github.com/python/cpython/issues/128679
    """
    import _tracemalloc

    sampler: Any = sys.modules.get(SAMPLER)
    if sampler and sampler.restore_allocators():
        time.sleep(DRAIN_S)
    _tracemalloc.stop()


def cost_of_tracing(frames: int) -> "tuple[int, int]":
    """Nanoseconds that an allocation takes here as it is, and while it is traced. Traces for a few milliseconds."""

    def nanoseconds(depth: int) -> float:
        if depth:
            return nanoseconds(depth - 1)
        best = 1.0
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(1000):
                bytes(100)
            best = min(best, time.perf_counter() - start)
        return best * 1e6

    plain = nanoseconds(min(frames, 25))
    trace(frames)
    traced = nanoseconds(min(frames, 25))
    stop_tracing()
    return int(plain), int(traced)


def prepare_tracing(library: bytes) -> None:
    """Load the sampler's library if that is possible: it can put allocators back."""
    try:
        if library and SAMPLER not in sys.modules:
            load_sampler(library)
    except ImportError:  # no /proc, and no folder for code: it goes without
        pass


def start_tracing(frames: int) -> None:
    """Let tracemalloc trace from now on, until pprofpy stops it or ends. If it traces already, only watch."""
    session = state["session"]
    is_new = not is_tracing()
    if is_new and not session["is_watched"]:
        raise RuntimeError("its main thread has ended: nobody would stop the tracing")
    begin("tracing" if is_new else "reading")
    if is_new:
        trace(frames)
    if session["is_over"]:  # the watch has ended meanwhile
        end(session)


def read_traces(collect: bool) -> None:
    """Put all traces into the control file, piece by piece, so that the program goes on in between.

    The first piece tells what tracemalloc itself needs, and whether the others hold sums by stack (see `take_sums` in
    sampler/sums.h) or traces as they are: without the sampler's library, summing up would take the program's time, so
    pprofpy does it. Then there are three pieces for the same traces: their stacks, their sizes, and the whole depths of
    their stacks (none in Python 3.8).
    """
    import _tracemalloc

    if collect:
        gc.collect()
    sampler: Any = sys.modules.get(SAMPLER)
    can_sum = hasattr(sampler, "add_traces")  # an earlier pprofpy's may be loaded
    if can_sum:
        sampler.take_sums()  # of a reading that failed
    fd, at = state["session"]["fd"], begin_to_say()
    chunk = max(1, CHUNK // _tracemalloc.get_traceback_limit())
    was_enabled = gc.isenabled()
    gc.disable()  # it would look at millions of new tuples
    try:
        traces: Any = _tracemalloc._get_traces()
        count = len(traces)
        at = put((_tracemalloc.get_tracemalloc_memory(), can_sum), at)
        for piece in pieces_of(traces, CHUNK if can_sum else chunk):
            if can_sum:
                sampler.add_traces(piece)
            else:
                at = put([trace[2] for trace in piece], at)
                at = put([trace[1] for trace in piece], at, PLAIN_MARSHAL_VERSION)
                at = put([trace[3] for trace in piece if len(trace) > 3], at, PLAIN_MARSHAL_VERSION)
            del piece
            write(fd, (count - len(traces)).to_bytes(8, "little") + count.to_bytes(8, "little"), 0)
        for piece in pieces_of(sampler.take_sums() if can_sum else [], chunk):
            at = put(piece, at)
    finally:
        if was_enabled:
            gc.enable()


def pieces_of(things: "list[Any]", size: int) -> "Any":
    """Empty a list piece by piece; other threads may run after each."""
    while things:
        piece = things[-size:]
        del things[-size:]
        yield piece
        del piece
        time.sleep(0)


# -- beside the engines ----------------------------------------------------------------------------------------------


def memory() -> "tuple[str, int]":
    """What the interpreter's and C's allocators say of themselves, where the sampler is there to ask them."""
    sampler: Any = sys.modules.get(SAMPLER)
    text, in_use = sampler.memory() if sampler else ("", -1)
    return text[:LONGEST_REPORT], in_use


def objects(limit: int) -> None:
    """Put the types that take most memory, and what holds some of their objects, into the control file."""
    say(biggest_types(limit))
