"""Runs native functions whose unwinding tables do not end, and whose C++ names mean gigabytes of text."""

import ctypes
import subprocess
import sys
import time
from pathlib import Path

COUNT, DIGITS = 60, "123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ESCAPES = {
    "states": "0x0a",
    "rows": "0x41",
    "numbers": "0x0e, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01",
    "expressions": "0x0f, 0x84, 0x06, " + ", ".join(["0x30"] * 772),
}
escape = ESCAPES[sys.argv[1]]
at_once = max(1, 4_000 // len(escape))  # in a directive: the assembler takes its time for each
repeats = 200_000 // len(escape) // at_once

text, names = [".text"], []
for number in range(COUNT):
    name = f"_Z8forged{number:02}1PI1AS0_E" + "".join(f"S_IS{digit}_S{digit}_E" for digit in DIGITS)
    names.append(name)
    text += [
        f".globl {name}", f".type {name}, @function", f"{name}:", ".cfi_startproc", f".rept {repeats}",
        ".cfi_escape " + ", ".join([escape] * at_once), ".endr", "mov $3000000, %ecx", "1: dec %ecx", "jnz 1b", "ret",
        ".cfi_endproc", f".size {name}, .-{name}",
    ]  # fmt: skip
source, library = Path(__file__).with_name("forged.S"), Path(__file__).with_name("forged.so")
source.write_text("\n".join(text) + '\n.section .note.GNU-stack,"",@progbits\n')
subprocess.run(["cc", "-shared", "-o", library, source], check=True)
loaded = ctypes.CDLL(library)
functions = [getattr(loaded, name) for name in names]
print("ready", flush=True)
while True:
    for function in functions:
        function()
    time.sleep(0.05)  # about as long as all of them took: the CPU is for others
