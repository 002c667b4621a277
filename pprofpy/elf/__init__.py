"""The only reader of ELF files: from a file, from bytes, or from a process's memory; see man 5 elf.

Whoever makes a file chooses what stands in it. So every count and size is limited before anything is read by it, and
what makes no sense is a NotElfError.
"""

from __future__ import annotations

from pprofpy.elf.dynamic import LoadedElf
from pprofpy.elf.headers import (
    ALL_SYMBOLS,
    Headers,
    NotElfError,
    Read,
    Section,
    Segment,
    named_section,
    read_headers,
    reader_of,
)
from pprofpy.elf.symbols import FunctionNames, find_symbols

__all__ = [
    "ALL_SYMBOLS",
    "FunctionNames",
    "Headers",
    "LoadedElf",
    "NotElfError",
    "Read",
    "Section",
    "Segment",
    "find_symbols",
    "named_section",
    "read_headers",
    "reader_of",
]
