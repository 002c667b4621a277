"""All that differs between versions of CPython, as data: a row of VERSIONS each (one file because it is one table). Any
other version is refused.

C gets it as defines: the programs in the kernel KERNEL_DEFINES and, for each process, its Layout; the sampler of
`pprofpy heap` what `sampler_defines` says. Its build reads this file (hatch_build.py): only the standard library here.

Source: `offsetof` with the headers of each version (tests/unit/test_cpython_outside.py does it again); for 3.13 and
later Include/internal/pycore_runtime.h and pycore_debug_offsets.h. Line tables: Objects/lnotab_notes.txt, PEP 626,
Objects/locations.md. Objects: Include/cpython/dictobject.h, Include/internal/pycore_dict.h, pycore_object.h. Offsets
are those of 64-bit builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

NO_CFRAME = 0xFFFF
"""As `cframe_frame`: a thread's state leads to its frame directly."""

NONE = 127
"""As an offset in a frame: there is no such member. The kernel reads a 0 there."""

STATUS_BOUND = 8
"""In what `thread_status` leads to: the thread was in this state last (`bound_gilstate`)."""

POINTER_TAGS = 3
"""Bits of a frame's pointers that are no part of the address (from 3.14 on; 0 in the others)."""

OWNED_BY_GENERATOR, CALL_FROM_C = 1, 3
"""Owners of a frame. From the latter on it holds no code of Python's."""

COROUTINE_FLAGS = 0x180
"""In `co_flags`: made by `async def`, or usable as such (CO_COROUTINE, CO_ITERABLE_COROUTINE)."""

GC_GENERATION_BYTES = 24
"""So far the counts of two generations are from each other."""

KERNEL_DEFINES: Mapping[str, int] = {
    "PYTHON_NO_CFRAME": NO_CFRAME,
    "PYTHON_STATUS_BOUND": STATUS_BOUND,
    "PYTHON_POINTER_TAGS": POINTER_TAGS,
    "PYTHON_GENERATOR": OWNED_BY_GENERATOR,
    "PYTHON_CALL_FROM_C": CALL_FROM_C,
    "PYTHON_COROUTINE_FLAGS": COROUTINE_FLAGS,
    "PYTHON_GC_GENERATION_BYTES": GC_GENERATION_BYTES,
}
"""What probes/python.h must know of CPython when it is compiled."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets in bytes. The names are those of `struct python_target` in probes/python.h.

    Attributes:
        interpreters_head: In _PyRuntimeState.
        runtime_current: In _PyRuntimeState, the PyThreadState that has the GIL; 0 where that is not said.
        interp_next, interp_threads, interp_modules: In PyInterpreterState.
        interp_gil: In PyInterpreterState, a pointer to the GIL; 0 where the runtime holds the only one.
        runtime_gil: In _PyRuntimeState, the GIL itself; 0 where each interpreter points to one.
        gil_holder, gil_locked: In the GIL.
        gil_enabled: In the GIL of a free-threaded build, whether it is in use now; 0 in others, too.
        thread_next, thread_interp, thread_id, thread_frame: In PyThreadState.
        thread_cframe: In PyThreadState, leads to a structure on the C stack while Python runs; 0 where there is none.
        thread_status: In PyThreadState, marks the state that its thread was in last; 0 where nothing does.
        cframe_frame, cframe_previous: In the _PyCFrame that `thread_frame` points to; NO_CFRAME where there is none.
        frame_bytes: How much of a frame to read.
        frame_previous, frame_code, frame_instruction: In a frame.
        frame_owner: In a frame; from 3 on it stands for a call from C. NONE where there is none.
        frame_entry: In a frame of 3.11: is it the first of a call from C?
        frame_generator: How far before a generator's frame `gi_frame_state` lies.
        code_instructions: In a code object, the first instruction.
        instruction_is_address: Does a frame hold the address of its instruction (1) or its number (0)?
        instruction_left, instruction_right: Shifts that make a 32-bit number of the latter, units of the former.
        code_bytes: How much of a code object to read.
        code_first_line, code_version, code_file, code_name, code_table: In a code object; 0 where there is none.
        object_type: In every object.
        object_length: In str and bytes.
        string_state: In str; `string_kind_shift` is the first bit of its kind.
        string_ascii, string_wide: Where the text of a str begins.
        bytes_data: Where the content of bytes begins.
        frame_object: In a frame of 3.11 and 3.12, a pointer to the frame object, if it has one; else 0.
        generator_runs: The `gi_frame_state` of a generator that runs (FRAME_EXECUTING).
        gc_collecting: In PyInterpreterState: is garbage being collected? 0 where that is not known.
        gc_in_runtime: It lies in _PyRuntimeState instead (1).
        gc_older: How far before it lies how often the youngest generation was collected since the next one was; behind
            that number, after GC_GENERATION_BYTES, the same of the next generation. 0 where that is not known.
        code_flags: In a code object.
        generator_frame: How far behind the begin of a generator its frame lies; 0 where it is an object of its own.
        frame_of_generator: In such a frame, the generator; else 0.
    """

    interpreters_head: int
    runtime_current: int
    interp_next: int
    interp_threads: int
    interp_modules: int
    interp_gil: int
    runtime_gil: int
    gil_holder: int
    gil_locked: int
    thread_next: int
    thread_interp: int
    thread_id: int
    thread_frame: int
    thread_cframe: int
    thread_status: int
    cframe_frame: int
    cframe_previous: int
    frame_bytes: int
    frame_previous: int
    frame_code: int
    frame_instruction: int
    frame_owner: int
    frame_entry: int
    frame_generator: int
    code_instructions: int
    instruction_is_address: int
    instruction_left: int
    instruction_right: int
    code_bytes: int
    code_first_line: int
    code_version: int
    code_file: int
    code_name: int
    code_table: int
    object_type: int = 8
    object_length: int = 16
    string_state: int = 32
    string_kind_shift: int = 2
    string_ascii: int = 48
    string_wide: int = 72
    bytes_data: int = 32
    frame_object: int = 0
    generator_runs: int = 0
    gc_collecting: int = 0
    gc_in_runtime: int = 0
    gc_older: int = 0
    code_flags: int = 36
    generator_frame: int = 0
    frame_of_generator: int = 0
    gil_enabled: int = 0


_3_8 = Layout(
    interpreters_head=32,
    runtime_current=1368,
    interp_next=0,
    interp_threads=8,
    interp_modules=56,
    interp_gil=0,
    runtime_gil=1152,
    gil_holder=8,
    gil_locked=16,
    thread_next=8,
    thread_interp=16,
    thread_id=176,
    thread_frame=24,
    thread_cframe=0,
    thread_status=0,
    cframe_frame=NO_CFRAME,
    cframe_previous=0,
    frame_bytes=112,
    frame_previous=24,
    frame_code=32,
    frame_instruction=104,
    frame_owner=NONE,
    frame_entry=NONE,
    frame_generator=0,
    code_instructions=0,
    instruction_is_address=0,
    instruction_left=32,
    instruction_right=32,
    code_bytes=128,
    code_first_line=40,
    code_version=0,
    code_file=104,
    code_name=112,
    code_table=120,
    frame_of_generator=96,
    gc_collecting=544,
    gc_in_runtime=1,
    gc_older=132,
)
_3_9 = replace(_3_8, gc_collecting=816, gc_in_runtime=0, runtime_current=568, runtime_gil=352, interp_modules=856)
_3_10 = replace(_3_9, thread_cframe=48, frame_instruction=96, frame_of_generator=88)
_3_11 = replace(
    _3_10,
    interpreters_head=40,
    runtime_current=576,
    interp_threads=16,
    interp_modules=888,
    runtime_gil=360,
    thread_id=152,
    thread_frame=56,
    thread_cframe=56,
    cframe_frame=8,
    cframe_previous=16,
    frame_bytes=72,
    frame_previous=48,
    frame_code=32,
    frame_instruction=56,
    frame_owner=69,
    frame_entry=68,
    frame_generator=5,
    frame_object=40,
    code_instructions=184,
    instruction_is_address=1,
    instruction_left=0,
    instruction_right=1,
    code_bytes=144,
    code_first_line=72,
    code_file=112,
    code_name=128,
    code_table=136,
    code_flags=48,
    generator_frame=80,
    frame_of_generator=0,
    gc_collecting=848,
)
_3_12 = replace(
    _3_11,
    runtime_current=0,
    interp_threads=72,
    interp_modules=944,
    interp_gil=384,
    runtime_gil=0,
    thread_id=136,
    cframe_frame=0,
    cframe_previous=8,
    frame_previous=8,
    frame_code=0,
    frame_object=48,
    frame_owner=70,
    frame_entry=NONE,
    code_instructions=192,
    code_first_line=68,
    code_version=92,
    string_ascii=40,
    string_wide=56,
    generator_frame=72,
    gc_collecting=312,
)
_3_13 = replace(
    _3_12,
    interpreters_head=632,
    interp_next=7264,
    interp_threads=7344,
    interp_modules=7656,
    interp_gil=16,
    thread_id=152,
    thread_frame=72,
    thread_cframe=0,
    thread_status=32,
    cframe_frame=NO_CFRAME,
    frame_object=0,
    code_instructions=200,
    gc_collecting=7600,
)
_3_14 = replace(
    _3_13,
    interpreters_head=808,
    interp_next=7272,
    interp_modules=7688,
    frame_bytes=80,
    frame_owner=74,
    code_instructions=208,
    gc_older=124,
)
_3_15 = replace(
    _3_14,
    interpreters_head=936,
    interp_next=7264,
    interp_threads=7336,
    interp_modules=7592,
    thread_id=176,
    generator_runs=4,
    gc_collecting=7512,
    gc_older=60,
)
_3_13T = replace(
    _3_13,
    interp_modules=7664,
    gil_holder=16,
    gil_locked=24,
    code_instructions=216,
    code_bytes=160,
    code_flags=64,
    generator_frame=88,
    code_first_line=84,
    code_version=108,
    code_file=128,
    code_name=144,
    code_table=152,
    object_type=24,
    object_length=32,
    string_state=48,
    string_ascii=56,
    string_wide=72,
    bytes_data=48,
    gc_collecting=0,
)


def with_mutexes_of(layout: Layout, mutex_bytes: int) -> Layout:
    """The layout with a C library whose mutexes have so many bytes (40 in what is written above): the GIL has two."""
    if not layout.runtime_current:
        return layout
    return replace(layout, runtime_current=layout.runtime_current + 2 * (mutex_bytes - 40))


class LineTable(Enum):
    """The form of a code object's line table."""

    LNOTAB = auto()
    """Until 3.9: pairs of steps in bytes of code and lines. `co_lnotab`."""
    RANGES = auto()
    """3.10: pairs of a range's length in bytes of code and the step to its line."""
    ENTRIES = auto()
    """From 3.11 on: entries of one to many bytes, for ranges in units of two bytes."""


class Attributes(Enum):
    """Where an instance has its attributes."""

    IN_DICT = auto()
    """In a dict, whose place the class tells."""
    POINTED_TO = auto()
    """3.11: in an array; a word before the object leads to it, and another one to the dict instead."""
    TAGGED = auto()
    """3.12: the same word leads to either, and an odd one to the array."""
    INLINE = auto()
    """From 3.13 on: in an array behind the object, as long as that says that it is in use."""


@dataclass(frozen=True, slots=True)
class Objects:
    """The forms of objects that are read for the names of threads.

    Attributes:
        has_compact_keys: The keys of a dict have a head of 32 bytes, and no hashes if all of them are str.
        values_head: How many bytes lie before the values of a dict that shares its keys with others.
        attributes: Where instances have theirs.
        dict_before: How far before an instance the word lies that may lead to its dict.
        cached_keys: In a class, the names of attributes that do not lie in a dict; 0 where they always do.
        int_flag_bits: How many bits lie below the number of digits of an int.
    """

    has_compact_keys: bool
    values_head: int
    attributes: Attributes
    dict_before: int
    cached_keys: int
    int_flag_bits: int


_OBJECTS_3_8 = Objects(
    has_compact_keys=False,
    values_head=0,
    attributes=Attributes.IN_DICT,
    dict_before=24,
    cached_keys=0,
    int_flag_bits=0,
)
_OBJECTS_3_11 = replace(_OBJECTS_3_8, has_compact_keys=True, attributes=Attributes.POINTED_TO, cached_keys=872)
_OBJECTS_3_12 = replace(_OBJECTS_3_11, attributes=Attributes.TAGGED, cached_keys=880, int_flag_bits=3)
_OBJECTS_3_13 = replace(_OBJECTS_3_12, attributes=Attributes.INLINE, values_head=8)
_OBJECTS_3_15 = replace(_OBJECTS_3_13, cached_keys=888)

_OBJECTS_3_13T = replace(_OBJECTS_3_13, dict_before=8, cached_keys=896)


@dataclass(frozen=True, slots=True)
class Version:
    """What is to be known of a version.

    Attributes:
        layout: Where the members of its structures lie.
        objects: The forms of its objects.
        lines: The form of its line tables.
    """

    layout: Layout
    objects: Objects
    lines: LineTable


VERSIONS = {
    (3, 8): Version(_3_8, _OBJECTS_3_8, LineTable.LNOTAB),
    (3, 9): Version(_3_9, _OBJECTS_3_8, LineTable.LNOTAB),
    (3, 10): Version(_3_10, _OBJECTS_3_8, LineTable.RANGES),
    (3, 11): Version(_3_11, _OBJECTS_3_11, LineTable.ENTRIES),
    (3, 12): Version(_3_12, _OBJECTS_3_12, LineTable.ENTRIES),
    (3, 13): Version(_3_13, _OBJECTS_3_13, LineTable.ENTRIES),
    (3, 14): Version(_3_14, _OBJECTS_3_13, LineTable.ENTRIES),
    (3, 15): Version(_3_15, _OBJECTS_3_15, LineTable.ENTRIES),
}
"""(major, minor) -> what is to be known of it."""

FREE_THREADED = {(3, 13): Version(_3_13T, _OBJECTS_3_13T, LineTable.ENTRIES)}
"""The same of builds without a GIL: objects have a larger head."""


class UnknownVersionError(ValueError):
    """Nothing is known of this version: it is refused rather than taken for another."""


def version_of(number: tuple[int, int], *, is_free_threaded: bool = False) -> Version:
    """What is to be known of a version.

    Args:
        number: (major, minor).
        is_free_threaded: Is it a build without a GIL?

    Raises:
        UnknownVersionError: Nothing is.
    """
    known = FREE_THREADED if is_free_threaded else VERSIONS
    if number not in known:
        span = " to ".join(map(spelled, sorted({min(known), max(known)})))
        what = "free-threaded " if is_free_threaded else ""
        those = "that" if len(known) == 1 else "those"
        raise UnknownVersionError(f"the layout of {what}Python {spelled(number)} is not known, only {those} of {span}")
    return known[number]


def version_like(number: tuple[int, int], *, is_free_threaded: bool = False) -> Version:
    """What is to be known of a version; of one that is newer than all of VERSIONS, what is to be tried and then proved.

    Arguments and errors are those of `version_of`.
    """
    if is_new(number) and not is_free_threaded:
        return VERSIONS[max(VERSIONS)]
    return version_of(number, is_free_threaded=is_free_threaded)


def is_new(number: tuple[int, int]) -> bool:
    """Is a version newer than all that are known, and may be like the newest of them?"""
    return number > max(VERSIONS) and number[0] == max(VERSIONS)[0]


def spelled(number: tuple[int, int]) -> str:
    """A version as people write it."""
    return f"{number[0]}.{number[1]}"


def sampler_defines() -> dict[str, str]:
    """What heapagent/sampler must know of CPython when it is compiled: in LAYOUTS, a row for each version."""
    rows = ", ".join(_sampler_row(number, one.layout) for number, one in VERSIONS.items())
    return {"LAYOUTS": rows, "CALL_FROM_C": str(CALL_FROM_C), "POINTER_TAGS": str(POINTER_TAGS)}


def _sampler_row(number: tuple[int, int], layout: Layout) -> str:
    """One version, in the order of `Layout` in heapagent/sampler/frames.h; -1 where there is nothing."""
    has_cframe, has_addresses = layout.cframe_frame != NO_CFRAME, layout.instruction_is_address
    members = {
        "minor": number[1],
        "thread_cframe": layout.thread_frame if has_cframe else -1,
        "current": layout.cframe_frame if has_cframe else layout.thread_frame,
        "code": layout.frame_code,
        "previous": layout.frame_previous,
        "instruction": layout.frame_instruction if has_addresses else -1,
        "owner": -1 if layout.frame_owner == NONE else layout.frame_owner,
        "bytecode": layout.code_instructions,
        "id": layout.thread_id,
        "is_current_by_thread": int(not layout.runtime_current),
    }
    return "{" + ", ".join(f".{name} = {value}" for name, value in members.items()) + "}"
