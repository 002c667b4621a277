"""Where an interpreter keeps its asyncio tasks, and where things lie in a task.

Until 3.13 `_asyncio._current_tasks`, a dict, has an entry for each event loop that runs a task just now. From 3.14 on
each thread's state has the task that it runs; where, the file that `_asyncio` is in tells in a section of its own.
uvloop and subclasses of `asyncio.Task` have the same tasks; those written in Python (`asyncio.tasks._PyTask`) are not
known.

Source: Modules/_asynciomodule.c (`TaskObj`, `Py_AsyncioModuleDebugOffsets`), Objects/genobject.c.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from pprofpy.collectors.cpython.dicts import Dicts, module_dict
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.elf import NotElfError, named_section, read_headers
from pprofpy.target import named_files, procfs

_MODULE, _CURRENT_TASKS, _SECTION = "_asyncio", "_current_tasks", b".AsyncioDebug"
_SAID = (
    "task.size", "task.name", "task.awaited_by", "task.is_task", "task.awaited_by_is_set", "task.coro", "task.node",
    "interpreter.size", "interpreter.tasks_head", "thread.size", "thread.running_loop", "thread.running_task",
    "thread.tasks_head",
)  # fmt: skip
_MOST_OFFSET = 1 << 15
_MOST_FILES = 8
_MADE_UP = "Task-"
_GENERATOR_FRAME = 16
"""In a coroutine or generator, where its frame is an object of its own."""


@dataclass(frozen=True, slots=True)
class TaskLayout:
    """Offsets in bytes.

    Attributes:
        coroutine, name: In a task.
        coroutine_name: In a coroutine or generator, its qualified name.
        function_closure: In a function.
        frame_stack: In a frame, the pointer to its stack, or to the top of it; or how deep that is.
        frame_depth: In a frame, how deep its stack is; 0 where there is a pointer to the top.
        frame_values: In a frame, where its stack begins; 0 where it lies elsewhere.
        awaited_before: How far before the top of a suspended coroutine's stack what it awaits lies.
        thread_task: In PyThreadState, the task that it runs; 0 where a dict tells.
        task_awaited_by, task_awaited_by_is_set: In a task, from 3.14 on; else 0.
    """

    coroutine: int
    name: int
    coroutine_name: int
    function_closure: int
    frame_stack: int
    frame_depth: int = 0
    frame_values: int = 0
    awaited_before: int = 8
    thread_task: int = 0
    task_awaited_by: int = 0
    task_awaited_by_is_set: int = 0


_3_8 = TaskLayout(coroutine=112, name=120, coroutine_name=56, function_closure=48, frame_stack=72)
_3_9 = replace(_3_8, coroutine=152, name=160)
_3_10 = TaskLayout(
    coroutine=160, name=168, coroutine_name=48, function_closure=72, frame_stack=64, frame_depth=80
)  # fmt: skip
_3_11 = TaskLayout(
    coroutine=136, name=144, coroutine_name=40, function_closure=72, frame_stack=64, frame_depth=64, frame_values=72
)  # fmt: skip
_3_12 = replace(_3_11, coroutine_name=32)
_3_13 = replace(_3_12, coroutine=120, name=128)
_3_14 = replace(
    _3_13, coroutine=128, name=136, frame_depth=0, frame_values=0,
    thread_task=872, task_awaited_by=96, task_awaited_by_is_set=109,
)  # fmt: skip
LAYOUTS = {
    (3, 8): _3_8,
    (3, 9): _3_9,
    (3, 10): _3_10,
    (3, 11): _3_11,
    (3, 12): _3_12,
    (3, 13): _3_13,
    (3, 14): _3_14,
    (3, 15): replace(_3_14, thread_task=1032, awaited_before=16),
}
"""(major, minor) -> where things lie, in builds with a GIL."""


@dataclass(frozen=True, slots=True)
class CurrentTasks:
    """Where the tasks of one process are that run just now.

    Attributes:
        layout: Where things lie.
        dict_at: The address of `_asyncio._current_tasks`; 0 where threads' states tell.
    """

    layout: TaskLayout
    dict_at: int


def current_tasks(runtime: Runtime, dicts: Dicts, modules: dict[str, int]) -> CurrentTasks | None:
    """Where the tasks of a process are; None if it has not imported asyncio, or has another one than we know.

    Args:
        runtime: Its interpreter.
        dicts: Reads it.
        modules: Its `sys.modules`.

    Raises:
        UnreadableError: It has changed while it was read.
    """
    layout = LAYOUTS.get(runtime.version)
    if layout is None or _MODULE not in modules or runtime.is_free_threaded:
        return None
    if not layout.thread_task:
        found = module_dict(dicts, modules[_MODULE]).get(_CURRENT_TASKS, 0)
        is_dict = found and dicts.type_name(found) == "dict"
        return CurrentTasks(layout, found) if is_dict else None
    said = _said_by_file(runtime)
    return CurrentTasks(said, 0) if said else None


def _said_by_file(runtime: Runtime) -> TaskLayout | None:
    """What the file with `_asyncio` says: the interpreter's own, or a library's."""
    known = LAYOUTS[runtime.version]
    own = runtime.image.interpreter.path
    with suppress(OSError):
        heads = (one for one in procfs.mappings(runtime.pid) if not one.offset)
        likely = (one for one in heads if one.path == own or one.path.rpartition("/")[2].startswith(_MODULE))
        for mapping in islice(likely, _MOST_FILES):
            with suppress(OSError, NotElfError), named_files.open_mapped(runtime.pid, mapping) as file:
                section = named_section(file.read, read_headers(file.read), _SECTION)
                if section and section.size >= 8 * len(_SAID):
                    return _layout(known, file.read(section.offset, 8 * len(_SAID)))
    return None


def _layout(known: TaskLayout, section: bytes) -> TaskLayout | None:
    """The layout that a file describes; None if it cannot be."""
    if len(section) < 8 * len(_SAID):
        return None
    said = dict(zip(_SAID, struct.unpack(f"<{len(_SAID)}Q", section), strict=True))
    pointers = {
        "coroutine": said["task.coro"],
        "name": said["task.name"],
        "thread_task": said["thread.running_task"],
        "task_awaited_by": said["task.awaited_by"],
    }
    is_set = said["task.awaited_by_is_set"]
    if not 0 < is_set < _MOST_OFFSET or any(not 0 < one < _MOST_OFFSET or one % 8 for one in pointers.values()):
        return None
    return replace(known, **pointers, task_awaited_by_is_set=is_set)


def task_of_thread(reader: ObjectReader, dicts: Dicts, tasks: CurrentTasks, thread_state: int) -> int:
    """The address of the task that a blocked thread runs, read from outside; 0: none.

    Args:
        reader, dicts: Read its interpreter.
        tasks: Where they are.
        thread_state: The thread's PyThreadState.

    Raises:
        UnreadableError: The thread has gone on.
    """
    memory, layout = reader.memory, reader.layout
    if tasks.layout.thread_task:
        return memory.word(thread_state + tasks.layout.thread_task)
    frames = set(reader.frame_addresses(thread_state))
    for _, task in dicts.entries(tasks.dict_at):
        coroutine = memory.word(task + tasks.layout.coroutine)
        inside = coroutine + layout.generator_frame
        if (inside if layout.generator_frame else memory.word(coroutine + _GENERATOR_FRAME)) in frames:
            return task
    return 0


def task_name(reader: ObjectReader, tasks: CurrentTasks, task: int) -> str:
    """The name that the program gave a task; of its coroutine if it gave none.

    Raises:
        UnreadableError: It is no task.
    """
    memory = reader.memory
    with suppress(UnreadableError):  # from 3.12 on, names that asyncio makes up are int as long as nobody asks for them
        name = reader.string(memory.word(task + tasks.layout.name))
        if not name.startswith(_MADE_UP):
            return name
    return reader.string(memory.word(memory.word(task + tasks.layout.coroutine) + tasks.layout.coroutine_name))
