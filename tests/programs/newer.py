"""Says of its interpreter what is not so, then burns; prints `ready`. Runs on every Python that describes itself.

    newer.py [MINOR] [WORD=VALUE...]     it is Python 3.MINOR; words of its `_Py_DebugOffsets`, by number, are these

Values are numbers; `@N` is what word N says. What is said of the interpreter is for others: it needs none of it itself.
"""

import ctypes
import runpy
import sys
from pathlib import Path

PAGE = 4096
WRITABLE = 7  # of code, too: constants may share its pages


def address_of(symbol):
    return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, symbol))


def put(kind, address, value):
    start = address & -PAGE
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), PAGE, WRITABLE) == 0
    kind.from_address(address).value = value


def main(words):
    table = address_of("_PyRuntime")
    said = list((ctypes.c_uint64 * 128).from_address(table))
    for word in words:
        if "=" in word:
            number, _, value = word.partition("=")
            put(ctypes.c_uint64, table + 8 * int(number), said[int(value[1:])] if value[0] == "@" else int(value))
        else:
            version = 3 << 24 | int(word) << 16 | 0xF0
            put(ctypes.c_uint32, address_of("Py_Version"), version)
            put(ctypes.c_uint64, table + 8, version)
    sys.argv = [str(Path(__file__).with_name("burn.py")), "3600", "0.005"]
    runpy.run_path(sys.argv[0], run_name="__main__")


main(sys.argv[1:])
