"""Assemble arch/x86_64/machine.S into machine_code.py beside it. `--check` only says whether it is current.

Users need no assembler: the bytes are kept with the code, and a test holds them against the source. Needs binutils.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HOME = Path(__file__).parent.parent / "pprofpy" / "arch" / "x86_64"
SOURCE, PRODUCT = HOME / "machine.S", HOME / "machine_code.py"
LINE_BYTES = 48
HEADER = '"""Machine code of machine.S, written by scripts/machine_code.py: do not edit."""\n\n'


def main() -> None:
    """Write the product, or compare it."""
    text = assemble()
    if "--check" not in sys.argv:
        PRODUCT.write_text(text)
    elif PRODUCT.read_text() != text:
        raise SystemExit(f"{PRODUCT.name} is not what {SOURCE.name} says: run python scripts/machine_code.py")


def assemble() -> str:
    """The text of machine_code.py."""
    with tempfile.TemporaryDirectory() as folder:
        linked, plain = Path(folder) / "machine.o", Path(folder) / "machine.bin"
        subprocess.run(["as", "--64", "-o", linked, SOURCE], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", linked, plain], check=True)
        names = subprocess.run(["nm", "-P", linked], check=True, capture_output=True, text=True).stdout
        code = plain.read_bytes()
    labels, layout = {}, {}
    for name, kind, value, *_ in (line.split() for line in names.splitlines()):
        if kind == "t":
            labels[name] = int(value, 16)
        elif kind == "a" and not name.startswith(("SYS_", "SIG_", "PY_FILE")):
            layout[name] = int(value, 16)
    lines = [code[start : start + LINE_BYTES].hex() for start in range(0, len(code), LINE_BYTES)]
    body = "CODE_BYTES = bytes.fromhex(\n" + "".join(f'    "{line}"\n' for line in lines) + ")\n\n"
    body += "# Where in it\n" + _constants({f"AT_{name.upper()}": offset for name, offset in labels.items()})
    return HEADER + body + "\n# Offsets in the frame and in the region, and the stages\n" + _constants(layout)


def _constants(values: dict[str, int]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in sorted(values.items(), key=lambda item: item[1]))


if __name__ == "__main__":
    main()
