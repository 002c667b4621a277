"""A program before it is compiled: a C file of `probes`, in one of its variants."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pprofpy import arch
from pprofpy.collectors.kernel.bytecode import kernel_function, parameter

FOLDER = Path(__file__).parents[1] / "probes"
"""Where the C files are."""

HEADERS = FOLDER / "headers"
"""What they include of the kernel's headers, as far as they need it."""

ITERATOR = ("bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy")
"""The functions of the kernel's that make an iterator, by which loops.h is faster to check; since Linux 6.4."""


@dataclass(frozen=True, slots=True)
class ProbeSource:
    """What is compiled.

    What depends on the kernel, the target or most options is no part of it: these are parameters, which the C files
    name (`#pragma parameter NAME ...`) and whose values are put into the compiled code as it is loaded.

    Attributes:
        file: The C file's name.
        layouts: C structs and the types that we read them as; the compiler checks size and offset of every field.
        defines: Which variant of it (`-DNAME=value`).
    """

    file: str
    layouts: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    defines: Mapping[str, int] = field(default_factory=dict)

    def plus(self, layouts: Mapping[str, np.dtype[Any]], **defines: int) -> ProbeSource:
        """The variant with these, too."""
        return replace(self, layouts={**self.layouts, **layouts}, defines={**self.defines, **defines})


@dataclass(frozen=True, slots=True)
class CompilerInput:
    """A source with all that the compiler is given.

    Attributes:
        source: What it is made of.
        text: The whole C text.
        flags: `-DNAME=value`, in order.
        parameters: The names of its parameters, by number; those of its other variants are among them.
    """

    source: ProbeSource
    text: str
    flags: tuple[str, ...]
    parameters: tuple[str, ...]

    @classmethod
    def of(cls, source: ProbeSource, *, iterators: bool, machine: str = "") -> CompilerInput:
        """What is compiled of a source.

        Args:
            source: Which.
            iterators: Use those of the kernel.
            machine: For which kind of machine; by default this one's.

        Raises:
            NotPossibleError: Nothing is known of such machines.
        """
        body = _text_of(source.file)
        parameters = tuple(dict.fromkeys(_parameters_in(body)))
        defined = [f"#define {name} {parameter(number)}\n" for number, name in enumerate(parameters)]
        functions = ITERATOR if iterators else ()
        defined += [f"#define {name.upper()} {kernel_function(number)}\n" for number, name in enumerate(functions)]
        defines = {**arch.kernel_defines(machine), **source.defines}
        flags = tuple(f"-D{name}={value}" for name, value in sorted(defines.items()))
        return cls(source, "".join(defined) + body + _layout_checks(source.layouts), flags, parameters)

    @property
    def digest(self) -> str:
        """Tells it from all others."""
        headers = (path.read_text() for path in sorted(HEADERS.rglob("*.h")))
        return hashlib.sha256("\0".join((self.text, *self.flags, *headers)).encode()).hexdigest()


def _text_of(name: str) -> str:
    """A C file with our own headers put in place: bcc understands maps only in the file that it is given."""
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((FOLDER / name).read_text().splitlines(), 1):
        if match := re.fullmatch(r'#include "([\w.]+)"', line):
            lines += [_text_of(match[1]), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines)


def _parameters_in(text: str) -> Iterator[str]:
    """The names in lines as `#pragma parameter TASK_PID TASK_TGID /* comment */`."""
    for names in re.findall(r"^#pragma parameter ([A-Z0-9_ ]+)", text, re.MULTILINE):
        yield from names.split()


def _layout_checks(layouts: Mapping[str, np.dtype[Any]]) -> str:
    """C assertions that a struct has exactly the size and the field offsets of the NumPy type it is read as."""
    checks = ['#line 1 "layout checks"']
    for name, dtype in layouts.items():
        checks.append(f'_Static_assert(sizeof(struct {name}) == {dtype.itemsize}, "size of {name}");')
        for member, (_, offset, *_) in (dtype.fields or {}).items():
            place = f"__builtin_offsetof(struct {name}, {member})"
            checks.append(f'_Static_assert({place} == {offset}, "{name}.{member}");')
    return "\n" + "\n".join(checks) + "\n"
