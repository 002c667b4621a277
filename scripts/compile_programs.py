"""Compile all programs for the kernel into the package, so that neither bcc nor LLVM is needed where it is used.

    python compile_programs.py [MACHINE ...]

For each kind of machine (`x86_64`, `aarch64`; by default this one's). What is compiled already is left alone, what is
none of ours any more is removed. bcc makes maps as it compiles: it takes root; without that, or without bcc, this says
so and changes nothing.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from pprofpy.collectors.kernel.compiler import compile_unit, find_bcc
from pprofpy.collectors.kernel.shipped import COMPILED, file_name, keep
from pprofpy.collectors.kernel.source import CompilerInput
from pprofpy.collectors.programs import units
from pprofpy.errors import PprofpyError
from pprofpy.system import privileges

AT_ONCE = 2
"""A compiler takes 160 MB."""


def main(machines: list[str]) -> str:
    """Compile what is missing; return why that is not possible, if so."""
    wanted = {file_name(unit): unit for machine in machines for unit in units(machine)}
    missing = [unit for name, unit in wanted.items() if not (COMPILED / name).exists()]
    for path in set(COMPILED.glob("*.json")) - {COMPILED / name for name in wanted}:
        path.unlink()
    if not missing:
        return ""
    if privileges.lacking(privileges.PROBES):
        return "compiling the kernel's programs takes root: going on without; commands compile them as they need them"
    find_bcc()
    print(f"programs: compiling {len(missing)} for the kernel", flush=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(compile_one, missing))
    return ""


def compile_one(unit: CompilerInput) -> None:
    """Compile a program into the package."""
    keep(unit, compile_unit(unit))


if __name__ == "__main__":
    try:
        if said := main(sys.argv[1:] or [""]):
            print(f"programs: {said}")
    except PprofpyError as error:
        sys.exit(f"programs: {error.message}; {error.hint}")
