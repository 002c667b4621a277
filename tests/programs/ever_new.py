"""Makes stacks that the kernel has never seen, all of which read the same: the same code, as new objects each time.

    ever_new.py COUNT WORK     for each line that comes: COUNT times WORK (naps, computes), then prints `done COUNT NS`

COUNT is of all threads together, NS what the naps took off the CPU by the threads' own clocks. `computes` runs two
threads that want the interpreter lock all the time.
"""

import sys
import threading
import time

kept = []  # so that addresses are new, too, for a while


def fresh(work):
    return work()


def naps():
    before_ns = time.perf_counter_ns() - time.thread_time_ns()
    time.sleep(1e-6)
    return time.perf_counter_ns() - time.thread_time_ns() - before_ns


def computes():
    number = 0
    for _ in range(3000):
        number += 1
    return number


def anew(function):
    """The same function, with a new code object."""
    made = type(function)(function.__code__.replace(), function.__globals__)
    kept.append(made)
    if len(kept) > 20_000:
        del kept[:10_000]
    return made


def repeat(count, work, sums):
    for _ in range(count):
        sums.append(anew(fresh)(anew(work)))


def main():
    count, work = int(sys.argv[1]), globals()[sys.argv[2]]
    sys.setswitchinterval(1e-4)
    print("ready", flush=True)
    for _ in sys.stdin:
        sums = []
        other = threading.Thread(target=repeat, args=(count // 2, work, sums))
        if work is computes:
            other.start()
            repeat(count // 2, work, sums)
            other.join()
        else:
            repeat(count, work, sums)
        print("done", len(sums), sum(sums), flush=True)


if __name__ == "__main__":
    main()
