"""Forges structures of its own interpreter: structures.py WHAT LAYOUT, the latter in JSON as pprofpy knows it.

Nothing of what is forged is used by the interpreter itself while a function runs and does not return.
"""

import ctypes
import json
import os
import sys
import threading
import time

what, layout = sys.argv[1], json.loads(sys.argv[2])
kept = []
PLAIN, GIANT, COPIES = 2_000, 1 << 20, 48


def word(address):
    return ctypes.c_uint64.from_address(address)


def memory(size):
    kept.append(ctypes.create_string_buffer(size))
    return ctypes.addressof(kept[-1])


ctypes.pythonapi.PyThreadState_Get.restype = ctypes.c_void_p
runtime = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
state = ctypes.pythonapi.PyThreadState_Get()
interp = word(state + layout["thread_interp"]).value


def spin():
    """Half of the time: who waits is looked at, too, and a CPU is left to the tests beside it."""
    while True:
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            pass
        time.sleep(0.002)


def leaf_frame():
    frame = word(state + layout["thread_frame"]).value
    return frame if layout["cframe_frame"] == 0xFFFF else word(frame + layout["cframe_frame"]).value


def interpreters():
    word(interp + layout["interp_next"]).value = interp
    return spin


def threads():
    word(state + layout["thread_next"]).value = state
    return spin


def many_threads():
    count, size = 200_000, 256
    start = memory(count * size)
    for place in range(start, start + count * size, size):
        word(place + layout["thread_next"]).value = place + size
        word(place + layout["thread_interp"]).value = interp
        word(place + layout["thread_id"]).value = word(state + layout["thread_id"]).value
    word(place + layout["thread_next"]).value = 0
    word(state + layout["thread_next"]).value = start
    return spin


def many_interpreters():
    count, size = 5_000, 16_384
    start = memory(count * size)
    for place in range(start, start + count * size, size):
        word(place + layout["interp_next"]).value = place + size
        word(place + layout["interp_threads"]).value = word(interp + layout["interp_threads"]).value
    word(place + layout["interp_next"]).value = interp
    word(runtime + layout["interpreters_head"]).value = start
    return spin


def frames():
    def forge_and_spin():
        frame = leaf_frame()
        word(frame + layout["frame_previous"]).value = frame
        while True:
            time.monotonic()

    return forge_and_spin


def tables():
    """Many functions with many instructions, each with a line table of a megabyte."""
    table = "co_linetable" if sys.version_info >= (3, 10) else "co_lnotab"
    source = "def work():\n" + "".join(f"    x{number % 50} = {number}\n" for number in range(PLAIN))
    functions = []
    for _ in range(COPIES):
        names = {}
        exec(source, names)
        work = names["work"]
        work.__code__ = work.__code__.replace(
            **{table: os.urandom(16) + bytes(GIANT - 16), "co_firstlineno": len(functions)}
        )
        functions.append(work)

    def run():
        while True:
            for work in functions:
                for _ in range(50):
                    work()
                time.sleep(0.001)

    return run


def lines():
    """Line numbers of thousands of bits."""
    table = "co_linetable" if sys.version_info >= (3, 10) else "co_lnotab"
    endless = b"\xf7" + b"\x7f" * 4000 + b"\x01" + b"\xf7\x7f\x7f\x7f\x7f\x7f\x7f\x01"
    spin.__code__ = spin.__code__.replace(**{table: endless, "co_firstlineno": 2**31 - 1})
    return spin


def texts():
    name = "spin" + os.urandom(4).hex()
    more = {"co_qualname": name} if sys.version_info >= (3, 11) else {}
    spin.__code__ = spin.__code__.replace(co_name=name, co_filename="/" + name, **more)
    for text in (spin.__code__.co_name, spin.__code__.co_filename):
        kept.append(text)
        word(id(text) + layout["object_length"]).value = 1 << 62
    return spin


def dicts():
    keys = word(id(threading._active) + 32).value
    for place in (24, 32) if sys.version_info >= (3, 11) else (32,):
        word(keys + place).value = 1 << 62
    return spin


def types():
    word(id(type(spin.__code__)) + layout["object_type"] + 16).value = 1 << 63
    return spin


def idents():
    word(state + layout["thread_id"]).value = 1 << 63
    return spin


function = globals()[what]()
print("ready", flush=True)
function()
