"""Threads that need the interpreter lock in known ways, timed by their own clocks. Prints `ready`, waits for a line.

`asleep_in_c` sleeps in C with the lock in hand (PyDLL, unlike CDLL, does not drop it); `compute_in_python` holds it as
long as it runs; `want_it` asks for it again and again and measures how long it took. Then prints JSON: in nanoseconds
what each has measured, and the tids.
"""

import ctypes
import json
import sys
import threading
import time

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
HOLD_US = 40000

held = ctypes.PyDLL(None)
free = ctypes.CDLL(None)
now_ns = time.perf_counter_ns


class Own(dict):
    """What one thread says of itself."""

    def run(self, work, end_ns):
        """Start a thread that does `work` until `end_ns`."""

        def body():
            self["tid"] = gettid()
            work(self, end_ns)

        thread = threading.Thread(target=body)
        thread.start()
        return thread


def gettid():
    return free.syscall(186)


def asleep_in_c(own, end_ns):
    held_ns = 0
    usleep, free_usleep = held.usleep, free.usleep
    while now_ns() < end_ns:
        before = now_ns()
        usleep(HOLD_US)
        held_ns += now_ns() - before
        free_usleep(20000)
    own["held_ns"] = held_ns


def want_it(own, end_ns):
    """A call that drops the lock, sleeps by the kernel's clock, and takes it again."""
    wait_ns, longest_ns, count = 0, 0, 0
    sleep_10ms = TimedSleep(10_000_000)
    while now_ns() < end_ns:
        waited_ns = sleep_10ms()
        wait_ns += waited_ns
        longest_ns = max(longest_ns, waited_ns)
        count += waited_ns > 200_000
    own.update(wait_ns=wait_ns, longest_ns=longest_ns, count=count)


class TimedSleep:
    """Sleeps without the lock until a point in time: what it takes longer is the wait for the lock."""

    def __init__(self, length_ns):
        self.length_ns = length_ns
        self.timespec = (ctypes.c_long * 2)()
        self.clock_nanosleep = free.clock_nanosleep

    def __call__(self):
        until_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + self.length_ns
        self.timespec[0], self.timespec[1] = divmod(until_ns, 1_000_000_000)
        self.clock_nanosleep(1, 1, self.timespec, None)
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC) - until_ns


def compute_in_python(own, end_ns):
    before_ns = time.thread_time_ns()
    while now_ns() < end_ns:
        spin()
    own["cpu_ns"] = time.thread_time_ns() - before_ns


def spin():
    number = 0
    for _ in range(2000):
        number += 1
    return number


def main():
    print("ready", flush=True)
    sys.stdin.readline()
    works = [globals()[name] for name in sys.argv[2:]]
    owns = [Own(work=work.__name__) for work in works]
    end_ns = now_ns() + int(SECONDS * 1e9)
    threads = [own.run(work, end_ns) for own, work in zip(owns, works)]
    for thread in threads:
        thread.join()
    print(json.dumps(owns), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
