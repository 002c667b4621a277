"""Burns on a frame as Nuitka makes them in Python 3.11 and 3.12: within its frame object, and called a generator's.

    compiled.py LAYOUT called    called by a Python function
    compiled.py LAYOUT alone     without any Python function below it

LAYOUT has the places in frames, as JSON. Prints `ready`. `compiled` never runs: its code is what the frame has.
"""

import ctypes
import json
import sys

BEFORE_FRAME, OWNED_BY_GENERATOR = 104, 1
NUMBERS = range(300_000)


def compiled():
    pass


def word(address):
    return ctypes.c_uint64.from_address(address)


def make_frame(layout, memory):
    """In memory that is not used for anything else; returns its address."""
    code, frame = id(compiled.__code__), ctypes.addressof(memory) + BEFORE_FRAME
    word(frame - 8).value = 0x7FFF_9642_1038  # where Nuitka has local variables, and generators their state
    word(frame + layout["frame_code"]).value = code
    word(frame + layout["frame_object"]).value = ctypes.addressof(memory)
    word(frame + layout["frame_instruction"]).value = code + layout["code_instructions"]
    ctypes.c_uint8.from_address(frame + layout["frame_owner"]).value = OWNED_BY_GENERATOR
    return frame


def burn(place, value, previous=None):
    """In C, where nobody looks at the word at `place`: it leads to the frame meanwhile."""
    before = place.value
    if previous is not None:
        previous.value = before
    place.value = value
    sum(NUMBERS)
    place.value = before


def main(layout, how):
    memory = (ctypes.c_char * 512)()
    frame, first = make_frame(layout, memory), ctypes.addressof(memory) + 400
    word(first + layout["cframe_frame"]).value = frame
    get_state = ctypes.pythonapi.PyThreadState_Get
    get_state.restype = ctypes.c_void_p
    running = word(get_state() + layout["thread_frame"])
    current, previous = word(running.value + layout["cframe_frame"]), word(frame + layout["frame_previous"])
    print("ready", flush=True)
    while True:
        if how == "called":
            burn(current, frame, previous)
        else:
            burn(running, first)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
