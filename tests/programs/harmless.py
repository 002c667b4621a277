"""Notices when something is done to it: sleeps and waits that end too early, changed registers, wrong sums,
errno of another call, signals that get lost.

Usage: harmless.py [LIBRARY built of registers.c]. Prints `ready`. Each SIGUSR1 is answered on standard error by `1`,
from a Python handler in the main thread, which sleeps. Each real-time signal is counted in C. A line on standard input
ends it; it then prints what it found, as JSON.
"""

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import threading
import time

REST_S = 0.002  # after about as long: it is met at work and at rest, and leaves a CPU to others

found = {"wrong": [], "sleeps": 0, "sums": 0, "registers": 0, "interrupted": 0, "rt": 0, "alarms": 0, "late_ms": 0.0}
ended = threading.Event()
wakeup_in, wakeup_out = socket.socketpair()


class EndError(Exception):
    """The main thread sleeps no longer."""


def end(*_):
    raise EndError


def wrong(text):
    if len(found["wrong"]) < 20:
        found["wrong"].append(text)


def sleeps():
    while not ended.is_set():
        start = time.monotonic()
        time.sleep(0.02)
        took_ms = (time.monotonic() - start) * 1000
        if took_ms < 19.9:
            wrong(f"a sleep of 20 ms took {took_ms:.1f} ms")
        found["late_ms"] = max(found["late_ms"], took_ms - 20)
        found["sleeps"] += 1


def sum_of_floats():
    total = 0.0
    for i in range(20000):
        total += 1.0 / (1 + i) ** 2
    return total


def sums():
    while not ended.is_set():
        total = sum_of_floats()
        if total != expected_sum:
            wrong(f"a sum is {total!r}")
        found["sums"] += 1
        time.sleep(REST_S)


expected_sum = sum_of_floats()


def allocates():
    while not ended.is_set():
        for _ in range(10):
            blocks = [bytearray(100 + i % 3000) for i in range(500)]
            if sum(map(len, blocks)) != 174750:
                wrong("blocks have other lengths")
        time.sleep(REST_S)


def waits():
    """Waits with a time-out, on things that never come."""
    _left, right = socket.socketpair()
    right.settimeout(0.03)
    lock = threading.Lock()
    lock.acquire()
    while not ended.is_set():
        start = time.monotonic()
        try:
            right.recv(1)
            wrong("something was received")
        except TimeoutError:
            pass
        if select.select([right], [], [], 0.03)[0] or lock.acquire(timeout=0.03):
            wrong("a wait was over without a reason")
        if time.monotonic() - start < 0.0895:
            wrong("three waits of 30 ms took %.4f s" % (time.monotonic() - start))


def registers(path):
    library = ctypes.CDLL(path, use_errno=True)
    result, pause = ctypes.c_long(), (ctypes.c_long * 2)(0, 3000000)
    nothing, _keep = os.pipe()
    poll = (ctypes.c_int * 2)(nothing, select.POLLIN)
    calls = [(35, ctypes.addressof(pause), 0, 0), (7, ctypes.addressof(poll), 1, 3)]
    libc = ctypes.CDLL(None, use_errno=True)
    while not ended.is_set():
        for call in calls:
            arguments = [ctypes.c_long(value) for value in call]
            changed = library.changed_registers(*arguments, ctypes.byref(result))
            if changed:
                wrong(f"{changed} registers changed in system call {call[0]}")
            if result.value == -errno.EINTR:
                found["interrupted"] += 1
            elif result.value:
                wrong(f"system call {call[0]} returned {result.value}")
            found["registers"] += 1
        libc.close(-1)
        if ctypes.get_errno() != errno.EBADF:
            wrong(f"errno is {ctypes.get_errno()}")


def counts_signals():
    while not ended.is_set() or select.select([wakeup_in], [], [], 0.2)[0]:
        if select.select([wakeup_in], [], [], 0.05)[0]:
            found["rt"] += wakeup_in.recv(65536).count(bytes([signal.SIGRTMIN + 1]))


def reads_the_end():
    sys.stdin.readline()
    ended.set()
    os.kill(os.getpid(), signal.SIGUSR2)


def main():
    for stream in (wakeup_in, wakeup_out):
        stream.setblocking(False)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4000000)
    signal.set_wakeup_fd(wakeup_out.fileno(), warn_on_full_buffer=True)
    signal.signal(signal.SIGRTMIN + 1, lambda *_: None)
    signal.signal(signal.SIGUSR1, lambda *_: os.write(2, b"1"))
    signal.signal(signal.SIGUSR2, end)
    if "--alarms" in sys.argv:
        signal.signal(signal.SIGALRM, lambda *_: found.update(alarms=found["alarms"] + 1))
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    jobs = [sleeps, sums, allocates, waits, counts_signals]
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    if len(sys.argv) > 1 and sys.argv[1].endswith(".so"):
        threads.append(threading.Thread(target=registers, args=(sys.argv[1],), daemon=True))
    threading.Thread(target=reads_the_end, daemon=True).start()
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    with contextlib.suppress(EndError):
        time.sleep(3600)
    for thread in threads:
        thread.join()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
