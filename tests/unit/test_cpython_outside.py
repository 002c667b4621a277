"""Reading a CPython from outside: symbols, layouts, strings, code objects and the names of threads."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from pprofpy.arch import arm64, x86_64
from pprofpy.collectors.cpython.blocked_stacks import blocked_stacks
from pprofpy.collectors.cpython.debugoffsets import TABLE_BYTES, debug_offsets, described
from pprofpy.collectors.cpython.memory import Memory, SnapshotMemory, UnreadableError
from pprofpy.collectors.cpython.runtime import find_runtime
from pprofpy.collectors.cpython.thread_names import ThreadNames
from pprofpy.collectors.cpython.versions import with_mutexes_of
from pprofpy.elf import NotElfError, find_symbols, read_headers, reader_of
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.target import Interpreter, Target, open_target, procfs
from tests.conftest import FREE_PYTHONS, PROGRAMS, PYTHONS, Start, facts_of, interpreter, wait_until

VERSIONS = (*PYTHONS, *FREE_PYTHONS)
COMPILERS = {"cc": x86_64.MACHINE, "aarch64-linux-gnu-gcc": arm64.MACHINE}


# -- symbols -------------------------------------------------------------------------------------------------------


def test_symbols_are_where_the_loader_has_put_them(start: Start) -> None:
    program = """
import ctypes, sys
print("ready", flush=True)
runtime = ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime")
print(ctypes.addressof(runtime), id(type((lambda: 0).__code__)), flush=True)
sys.stdin.readline()
"""
    process = start(sys.executable, "-c", program, stdin=subprocess.PIPE)
    assert process.stdout is not None
    said = [int(word) for word in process.stdout.readline().split()]

    found = find_runtime(open_target(process.pid))

    assert [found.address, found.code_type] == said
    assert found.version == sys.version_info[:2]


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize("flags", [["-shared", "-fPIC"], ["-pie", "-fPIE"], ["-no-pie"]])
@pytest.mark.parametrize("is_stripped", [False, True])
def test_symbols_of_stripped_and_unstripped_files_of_all_kinds(
    flags: list[str], is_stripped: bool, tmp_path: Path
) -> None:
    source, library = tmp_path / "x.c", tmp_path / "x"
    source.write_text("int wanted = 1, unwanted = 2; int not_wanted = 3; int main(void) { return 0; }")
    strip = ["-s"] if is_stripped else []
    subprocess.run(["cc", *flags, *strip, "-rdynamic", "-o", library, source], check=True)

    read = reader_of(library.read_bytes())
    symbols = find_symbols(read, read_headers(read), ["wanted", "not_wanted", "missing"])

    assert set(symbols) == {"wanted", "not_wanted"}
    assert symbols["wanted"] != symbols["not_wanted"]


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n" * 100, b"\x7fELF\x02\x01" + b"\xff" * 200])
def test_a_file_that_is_no_elf_is_an_error_of_ours(content: bytes) -> None:
    with pytest.raises(NotElfError):
        read_headers(reader_of(content))


# -- layouts -------------------------------------------------------------------------------------------------------

OFFSETS = r"""
#define Py_BUILD_CORE 1
#include <stddef.h>
#include <stdio.h>
#include <Python.h>
#if PY_VERSION_HEX < 0x030b0000
#include <code.h>
#include <frameobject.h>
#else
#include <internal/pycore_frame.h>
#endif
#if PY_VERSION_HEX >= 0x03090000
#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>
#endif
#include <internal/pycore_pystate.h>
#if PY_VERSION_HEX >= 0x030d0000
#include <internal/pycore_object.h>
#endif
#if PY_VERSION_HEX >= 0x030b0000
#include <internal/pycore_code.h>
#endif
#define TELL(name, value) __asm__ volatile("@ " name " %c0" : : "i"((size_t)(value)))
#define SAY(name, type, member) TELL(name, offsetof(type, member))
void tell(void)
{
    SAY("interpreters_head", _PyRuntimeState, interpreters.head);
    SAY("interp_next", PyInterpreterState, next);
#if PY_VERSION_HEX < 0x030b0000
    SAY("interp_threads", PyInterpreterState, tstate_head);
#else
    SAY("interp_threads", PyInterpreterState, threads.head);
#endif
#if PY_VERSION_HEX < 0x030c0000
    SAY("interp_modules", PyInterpreterState, modules);
#else
    SAY("interp_modules", PyInterpreterState, imports.modules);
    SAY("interp_gil", PyInterpreterState, ceval.gil);
#endif
    SAY("gil_holder", struct _gil_runtime_state, last_holder);
    SAY("gil_locked", struct _gil_runtime_state, locked);
#if PY_VERSION_HEX < 0x030c0000
    TELL("runtime_gil", offsetof(_PyRuntimeState, ceval) + offsetof(struct _ceval_runtime_state, gil));
#endif
    SAY("thread_next", PyThreadState, next);
    SAY("thread_interp", PyThreadState, interp);
    SAY("thread_id", PyThreadState, thread_id);
#if PY_VERSION_HEX < 0x030c0000
    SAY("runtime_current", _PyRuntimeState, gilstate.tstate_current);
#endif
#if PY_VERSION_HEX >= 0x030a0000 && PY_VERSION_HEX < 0x030d0000
    SAY("thread_cframe", PyThreadState, cframe);
#elif PY_VERSION_HEX >= 0x030d0000
    SAY("thread_status", PyThreadState, _status);
#endif
    SAY("code_first_line", PyCodeObject, co_firstlineno);
    SAY("code_flags", PyCodeObject, co_flags);
    SAY("code_file", PyCodeObject, co_filename);
#if PY_VERSION_HEX < 0x030b0000
    SAY("thread_frame", PyThreadState, frame);
    SAY("frame_previous", PyFrameObject, f_back);
    SAY("frame_code", PyFrameObject, f_code);
    SAY("frame_instruction", PyFrameObject, f_lasti);
    SAY("code_name", PyCodeObject, co_name);
#else
    SAY("frame_previous", _PyInterpreterFrame, previous);
    SAY("frame_owner", _PyInterpreterFrame, owner);
    SAY("code_name", PyCodeObject, co_qualname);
    SAY("code_instructions", PyCodeObject, co_code_adaptive);
#endif
#if PY_VERSION_HEX < 0x030a0000
    SAY("code_table", PyCodeObject, co_lnotab);
#else
    SAY("code_table", PyCodeObject, co_linetable);
#endif
#if PY_VERSION_HEX >= 0x030d0000
    SAY("thread_frame", PyThreadState, current_frame);
    SAY("frame_code", _PyInterpreterFrame, f_executable);
    SAY("frame_instruction", _PyInterpreterFrame, instr_ptr);
#elif PY_VERSION_HEX >= 0x030b0000
    SAY("thread_frame", PyThreadState, cframe);
    SAY("cframe_frame", _PyCFrame, current_frame);
    SAY("cframe_previous", _PyCFrame, previous);
    SAY("frame_code", _PyInterpreterFrame, f_code);
    SAY("frame_instruction", _PyInterpreterFrame, prev_instr);
    SAY("frame_object", _PyInterpreterFrame, frame_obj);
    TELL("frame_generator", offsetof(PyGenObject, gi_iframe) - offsetof(PyGenObject, gi_frame_state));
#endif
#if PY_VERSION_HEX >= 0x030b0000 && PY_VERSION_HEX < 0x030c0000
    SAY("frame_entry", _PyInterpreterFrame, is_entry);
#endif
#if PY_VERSION_HEX >= 0x030c0000
    SAY("code_version", PyCodeObject, co_version);
#endif
#if PY_VERSION_HEX >= 0x030b0000
    SAY("cached_keys", PyHeapTypeObject, ht_cached_keys);
#endif
#if PY_VERSION_HEX >= 0x030b0000
    SAY("generator_frame", PyGenObject, gi_iframe);
#endif
#if PY_VERSION_HEX >= 0x030d0000
    TELL("dict_before", -MANAGED_DICT_OFFSET);
#endif
#ifdef Py_GIL_DISABLED
    SAY("gil_enabled", struct _gil_runtime_state, enabled);
#endif
    SAY("object_type", PyObject, ob_type);
    SAY("object_length", PyASCIIObject, length);
    SAY("string_state", PyASCIIObject, state);
    TELL("string_ascii", sizeof(PyASCIIObject));
    TELL("string_wide", sizeof(PyCompactUnicodeObject));
    SAY("bytes_data", PyBytesObject, ob_sval);
}
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_offsets_are_those_of_the_headers(compiler: str, version: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    headers = Path(interpreter(version)).parent.parent / "include" / f"python{version}"
    if not (headers / "internal" / "pycore_pystate.h").exists():
        pytest.skip(f"there are no headers of Python {version} here")
    (tmp_path / "x.c").write_text(OFFSETS)
    folders = [f"-I{headers}", f"-I{headers}/internal"]
    subprocess.run([compiler, "-w", "-S", *folders, "-o", tmp_path / "x.s", tmp_path / "x.c"], check=True)
    said = re.findall(r"^\s*@ (\w+) (\d+)$", (tmp_path / "x.s").read_text(), re.MULTILINE)
    expected = {name: int(offset) for name, offset in said}

    known = facts_of(version)
    ours = asdict(with_mutexes_of(known.layout, COMPILERS[compiler].mutex_bytes)) | asdict(known.objects)

    assert len(expected) > 20
    assert {name: ours[name] for name in expected} == expected


@pytest.mark.parametrize("version", ["3.13", *FREE_PYTHONS, "3.14", "3.15"])
def test_interpreters_say_the_same_of_themselves(version: str, start: Start) -> None:
    found = find_runtime(open_target(start(interpreter(version), str(PROGRAMS / "sleeper.py")).pid))
    raw = found.reader().memory.read(found.address, TABLE_BYTES)

    assert debug_offsets(found.version, raw)
    assert described(found.version, raw) == facts_of(version)


# -- a process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [*VERSIONS, "system"])
def test_stacks_are_those_that_the_program_has(version: str, start: Start) -> None:
    target = open_target(start(interpreter(version), str(PROGRAMS / "sleeper.py")).pid)
    runtime = find_runtime(target)
    reader = runtime.reader()

    (thread,) = reader.thread_states(runtime.address)
    wait_until(lambda: len(reader.frames(thread)) == 2, "it waits")  # it says that it is ready just before
    codes = [reader.code(address) for address in reader.frames(thread)]

    assert [code.name for code in codes] == ["wait_for_ever", "<module>"]
    assert {code.filename for code in codes} == {str(PROGRAMS / "sleeper.py")}
    assert codes[0].first_line == 6


@pytest.mark.parametrize("how", ["inside", "nested", "borrowed"])
@pytest.mark.parametrize("version", [*VERSIONS, "system"])
def test_blocked_threads_are_found_in_the_interpreter_that_they_are_in(version: str, how: str, start: Start) -> None:
    if (version, how) in {("3.8", "borrowed"), ("3.9", "borrowed")}:
        pytest.skip("this version does not say where a thread is whose state another has made")
    target = open_target(start(interpreter(version), str(PROGRAMS / "subinterpreters.py"), how, "sleep").pid)
    runtime = find_runtime(target)

    def stacks() -> list[list[str]]:
        calls = {thread.tid: procfs.system_call(target.pid, thread.tid) for thread in target.threads()}
        found = blocked_stacks(runtime, {tid: call.stack_pointer for tid, call in calls.items() if call})
        return [[frame.function.system_name.rpartition(".")[2] for frame in stack.frames] for stack in found.values()]

    wait_until(lambda: ["sleep_there", "<module>"] in stacks(), "the thread is seen where it sleeps")
    others = [stack for stack in stacks() if stack != ["sleep_there", "<module>"]]
    assert others == [] or how == "borrowed"


THREADS = """
import threading, time
class Own(threading.Thread):
    def run(self): time.sleep(3600)
def start(thread):
    thread.daemon = True
    thread.start()
    return thread
start(threading.Thread(target=time.sleep, args=(3600,), name="w\\u00e9rker \\u20ac"))
start(Own(name="own"))
many = start(Own(name="many attributes"))
for number in range(40): setattr(many, "a%d" % number, number)
start(Own(name="dict taken")).__dict__
class Entry: pass
def add(name, native_id):
    entry = threading._active[len(threading._active)] = Entry()
    entry._name, entry._native_id = name, native_id
add("beta", threading.get_native_id())  # as gevent does it
later = start(Own(name="later"))
threading._active.pop(later.ident)
add("Dummy-7", later.native_id)  # of an ended thread of that number
threading._active[later.ident] = later
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("version", [*VERSIONS, "system"])
def test_threads_have_the_names_that_the_program_gave_them(version: str, start: Start) -> None:
    process = start(interpreter(version), "-c", THREADS)
    target = open_target(process.pid)
    names = ThreadNames()

    tids = [thread.tid for thread in target.threads()]
    names.learn(find_runtime(target), tids)

    expected = {"MainThread", "wérker €", "own", "many attributes", "dict taken", "later"}
    assert {names.name(process.pid, tid) for tid in tids} == expected
    assert names.name(process.pid, process.pid) == "MainThread"
    assert names.name(process.pid, 1) == "thread 1"
    assert names.name(1, process.pid, "python3") == "python3"


def test_a_thread_that_takes_the_name_of_each_job_has_them_all(start: Start) -> None:
    code = """
import sys, threading
print("ready", flush=True)
for line in sys.stdin:
    threading.current_thread().name = line.strip()
    print("ready", flush=True)
"""
    process = start(sys.executable, "-c", code, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    runtime, names = find_runtime(open_target(process.pid)), ThreadNames()

    seen = []
    for job in ("red", "blue", "red", "green", "yellow", "pink"):
        process.stdin.write(f"{job}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"

        def has_read_again(before: object = names._read_at.get(process.pid)) -> bool:
            names.learn(runtime, [process.pid])
            return names._read_at.get(process.pid) != before

        wait_until(has_read_again, "names are read again")
        seen.append(names.name(process.pid, process.pid))

    assert seen == ["red", "red, blue", "red, blue", *["red, blue, green"], *["red, blue, green, …"] * 2]


def test_a_thousand_threads_have_their_names(start: Start) -> None:
    process = start(sys.executable, str(PROGRAMS / "crowd.py"), "1000")
    target = open_target(process.pid)
    names, tids = ThreadNames(), [thread.tid for thread in target.threads()]

    names.learn(find_runtime(target), tids)

    assert len({names.name(process.pid, tid, "") for tid in tids} - {f"thread {tid}" for tid in tids}) == len(tids)


def test_memory_that_is_not_there_is_told_from_a_process_that_is_gone() -> None:
    with pytest.raises(UnreadableError):
        Memory(os.getpid()).read(16, 8)
    with subprocess.Popen([sys.executable, "-c", ""]) as done:
        done.wait()
    with pytest.raises(TargetError):
        Memory(done.pid).read(4096, 8)


def test_a_snapshot_says_what_the_memory_said_when_it_was_first_asked() -> None:
    content = bytearray(range(256)) * 64
    at = ctypes.addressof((ctypes.c_char * len(content)).from_buffer(content))
    snapshot, before = SnapshotMemory(os.getpid()), bytes(content)

    for place, size in ((0, 0), (0, 1), (4090, 8), (4096, 4096), (5000, 8), (1, 9000)):
        assert snapshot.read(at + place, size) == before[place : place + size]
    content[5000] ^= 0xFF

    assert snapshot.read(at + 5000, 1) == before[5000:5001]
    assert SnapshotMemory(os.getpid()).read(at + 5000, 1) == bytes(content[5000:5001])


@pytest.mark.parametrize(
    ("interpreter_in_it", "reason"),
    [
        (Interpreter("PyPy", "3.10", True, False, "/usr/lib/libpypy3.10-c.so"), "PyPy is not CPython"),
        (Interpreter("CPython", "3.11.2", True, False, "/nowhere/libpython3.11.so"), "cannot be read"),
    ],
)
def test_what_is_not_known_is_refused(
    interpreter_in_it: Interpreter, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pprofpy.collectors.cpython.runtime._PATIENCE_S", 0.0)  # we may have started just now
    monkeypatch.setattr("pprofpy.collectors.cpython.loaded.mapped_interpreters", lambda pid: [interpreter_in_it])
    ours = open_target(os.getpid())
    target = Target(**{name: getattr(ours, name) for name in Target.__slots__} | {"interpreter": interpreter_in_it})

    with pytest.raises(NotPossibleError, match=re.escape(reason)) as caught:
        find_runtime(target)

    assert "py-spy" in caught.value.hint
