"""A thread that sleeps and computes in turn, and says how long by its own clocks. Prints `ready`, waits for a line.

Then prints JSON: the thread's tid, and in nanoseconds the time asleep (wall clock around each sleep) and the CPU time.
"""

import json
import sys
import threading
import time

ROUNDS = 20


def work(result):
    asleep_ns, cpu_ns = 0, time.thread_time_ns()
    for _ in range(ROUNDS):
        before = time.monotonic_ns()
        time.sleep(0.02)
        asleep_ns += time.monotonic_ns() - before
        until = time.thread_time_ns() + 10_000_000
        while time.thread_time_ns() < until:
            pass
    result.update(tid=threading.get_native_id(), asleep_ns=asleep_ns, cpu_ns=time.thread_time_ns() - cpu_ns)


def main():
    print("ready", flush=True)
    sys.stdin.readline()
    result = {}
    thread = threading.Thread(target=work, args=(result,))
    thread.start()
    thread.join()
    print(json.dumps(result), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
