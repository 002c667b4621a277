"""Allocates what it is told to on standard input, a task a line, and answers each with the truth: `done BLOCKS BYTES`.

Each task allocates on one line only, named after it by a comment. The numbers are of what that line has allocated in
all; what tasks keep is kept for ever.
"""

import _thread
import array
import gc
import os
import sys
import threading
import time

COUNT, BLOCK_BYTES = 10000, 4057 - sys.getsizeof(b"")
KEPT = []
LONGEST = [0.0]


def leak():
    for _ in range(COUNT):
        KEPT.append(bytes(BLOCK_BYTES))  # line: leak
    return COUNT, COUNT * sys.getsizeof(KEPT[-1])


def churn():
    size = sys.getsizeof(bytes(9967))
    for _ in range(100000):
        bytes(9967)  # line: churn
    return 100000, 100000 * size


def mixed():
    """Sizes from 40 bytes to 64 KiB, every second one kept."""
    sizes = [7, 100, 480, 600, 3000, 20000, 65503]
    total = count = 0
    for number in range(14000):
        block = bytes(sizes[number % 7])  # line: mixed
        total, count = total + sys.getsizeof(block), count + 1
        if number % 2:
            KEPT.append(block)
    return count, total


def small():
    """Blocks for Python's arenas; every second one is kept, the others are freed in another thread."""
    sizes = [1, 60, 200, 470]
    gone = []
    total = 0
    for number in range(200000):
        size = sizes[number // 2 % 4]
        block = bytes(size)  # line: small
        total += sys.getsizeof(block)
        (KEPT if number % 2 else gone).append(block)
    other = threading.Thread(target=gone.clear)
    other.start()
    other.join()
    return 200000, total


def shrink():
    """Blocks that begin small, grow out of the arenas and become small again."""
    count, size = 50000, 0
    for _ in range(count):
        buffer = bytearray(100)
        buffer += bytes_of_10k()
        del buffer[199:]  # line: shrink
        size = sys.getsizeof(buffer) - bytearray.__basicsize__
        KEPT.append(buffer)
    return count, count * size


def grow():
    """A buffer that is moved to a larger place again and again: one block is left."""
    buffer = bytearray()
    for _ in range(2000):
        buffer += bytes_of_10k()  # line: grow
    KEPT.append(buffer)
    return 1, sys.getsizeof(buffer)


def bytes_of_10k(block=b"x" * 10000):
    return block


def big():
    for _ in range(4):
        KEPT.append(bytes(10 << 20))  # line: big
    return 4, 4 * sys.getsizeof(KEPT[-1])


def numpy():
    import numpy

    for _ in range(100):
        KEPT.append(numpy.ones(50000))  # line: numpy
    return 100, 100 * KEPT[-1].nbytes


def cycles():
    """Garbage that only the collector finds, which does not run by itself any more."""
    gc.disable()
    for _ in range(1000):
        ring = [None, None]
        ring[0] = ring
        ring[1] = bytes(10000)  # line: cycles
    return 1000, 1000 * (10000 + sys.getsizeof(b""))


def elsewhere():
    """Blocks of this thread, all freed in another one."""
    blocks = []
    for _ in range(COUNT):
        blocks.append(bytes(BLOCK_BYTES))  # line: elsewhere
    other = threading.Thread(target=blocks.clear, name="cleaner")
    other.start()
    other.join()
    return COUNT, COUNT * (BLOCK_BYTES + sys.getsizeof(b""))


class Odd(type):
    """A class of this kind can't be hashed."""

    def __eq__(cls, other):
        raise AssertionError("nobody needs to compare classes")


class Order(list, metaclass=Odd):
    """Has a class of its own, for a look by type."""

    def __init__(self, number):
        self.number = number


def orders():
    kept = [Order(number) for number in range(COUNT)]
    KEPT.append({"orders": kept})
    return COUNT, sum(map(sys.getsizeof, kept))


def fork():
    """A child that allocates, and whose fate is the answer."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            leak()
            tracemalloc = sys.modules.get("_tracemalloc")
            sampler = sys.modules.get("_pprofpy_sampler")
            is_off = not (tracemalloc and tracemalloc.is_tracing()) and not (sampler and any(sampler.state()[:2]))
            status = 0 if is_off else 3
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)


def crowd():
    """Four threads that allocate and free until the next task."""
    for number in range(4):
        threading.Thread(target=busy, args=(number,), daemon=True).start()
    return 0, 0


def busy(number):
    kept = []
    while True:
        kept.append({number: [bytes(300), bytearray(5000), array.array("d", [0.0] * 500)]})
        if len(kept) > 200:
            del kept[::2]


def births():
    """Threads that begin and end, one after the other."""

    def bear():
        while True:
            _thread.start_new_thread(bytes, (100,))
            time.sleep(0.0005)

    threading.Thread(target=bear, daemon=True).start()
    return 0, 0


def hold():
    """Many blocks, and a thread that notes the longest time in which it was kept from running; see `pause`."""
    KEPT.extend([bytes(40) for _ in range(300000)])
    threading.Thread(target=beat, daemon=True).start()
    return 300000, 0


def beat():
    """By the process's own clock: what others do on the machine is no pause."""
    while True:
        start = time.process_time()
        time.sleep(0.001)
        LONGEST[0] = max(LONGEST[0], time.process_time() - start)


def pause():
    """Microseconds of the longest pause since the last question."""
    longest, LONGEST[0] = LONGEST[0], 0.0
    return 0, int(longest * 1e6)


def copy():
    """The longest pause while a new thread copies tracemalloc's traces, and gives them back bit by bit."""
    import _tracemalloc

    def run():
        gc.disable()
        traces = _tracemalloc._get_traces()
        while traces:
            del traces[-1000:]
        gc.enable()

    pause()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    time.sleep(0.01)
    return pause()


def stop():
    sys.exit(0)


def speed():
    """Nanoseconds for an allocation, the best of ten rounds."""
    best = 1.0
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(20000):
            bytes(100)
        best = min(best, time.perf_counter() - start)
    return 20000, int(best / 20000 * 1e9)


def main():
    if "numpy" in sys.argv:
        import numpy  # noqa: F401 - so that it is there before the recording
    print("ready", flush=True)
    for line in sys.stdin:
        count, size = globals()[line.strip()]()
        print("done", count, size, flush=True)


main()
