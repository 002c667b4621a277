"""Spends time in known ways, on the CPU and off it, and says by its own clock how much. Runs on any Python from 3.8 on.

Prints `ready`, waits for a line, prints JSON and waits for a line again. `wall_ns`: function -> time between its begin
and its end, however it was spent; `tids`: function -> tid. All but `stays` and `holds` run in the main thread: naps
sleeps, needs waits for a lock, polls waits in select, computes runs. `stays` waits for a lock from beginning to end.
"""

import json
import select
import socket
import sys
import threading
import time

ROUNDS = 5
wall_ns = {}
tids = {"main": threading.get_native_id()}

lock, is_held, is_wanted, never = threading.Lock(), threading.Event(), threading.Event(), threading.Event()
has_begun = threading.Event()
here, there = socket.socketpair()


def naps():
    time.sleep(0.06)


def holds():
    tids["holds"] = threading.get_native_id()
    has_begun.set()
    while True:
        is_wanted.wait()
        is_wanted.clear()
        with lock:
            is_held.set()
            time.sleep(0.06)


def needs():
    is_wanted.set()
    is_held.wait()
    is_held.clear()
    with lock:
        pass


def polls():
    select.select([here], [], [], 0.06)


def computes():
    end = time.thread_time() + 0.06
    while time.thread_time() < end:
        sum(range(500))


def stays():
    tids["stays"] = threading.get_native_id()
    has_begun.set()
    never.wait()


def start(work):
    has_begun.clear()
    threading.Thread(target=work, daemon=True).start()
    has_begun.wait()


def measured(work):
    before = time.perf_counter_ns()
    work()
    wall_ns[work.__name__] = wall_ns.get(work.__name__, 0) + time.perf_counter_ns() - before


def phases():
    start(holds)
    for _ in range(ROUNDS):
        for work in (naps, needs, polls, computes):
            measured(work)


start(stays)
print("ready", flush=True)
sys.stdin.readline()
phases()
print(json.dumps({"wall_ns": wall_ns, "tids": tids}), flush=True)
sys.stdin.readline()
