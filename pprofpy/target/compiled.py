"""Is a program compiled from Python to C? Then its frames tell less than the interpreter's."""

from __future__ import annotations

from contextlib import suppress

from pprofpy.elf import NotElfError, read_headers
from pprofpy.target import named_files, procfs
from pprofpy.target.interpreter import PROGRAM_NAME, constants
from pprofpy.target.process import Target

NUITKA_NOTE = (
    "The program is compiled by Nuitka: its functions are shown at the line of their definition; those that cannot "
    "raise an error may have no frame, and count for their callers."
)
_NUITKA = b"\0nuitka_module_loader\0"
"""The type by which Nuitka's programs import what is compiled into them."""


def is_by_nuitka(target: Target) -> bool:
    """Is a process's program compiled by Nuitka? False, too, if it cannot be read."""
    with suppress(OSError, NotElfError):
        if PROGRAM_NAME.fullmatch(procfs.program(target.pid).rpartition("/")[2]):
            return False
        with named_files.open_program(target.pid) as file:
            return any(_NUITKA in content for content in constants(file.read, read_headers(file.read)))
    return False
