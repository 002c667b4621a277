"""Threads that wait in known ways, and say by their own clocks for how long. Runs on any Python from 3.8 on.

Prints `ready`, waits for a line, prints JSON and waits for a line again. `off_cpu_ns`: function -> time off the CPU
(wall clock less CPU clock around its waits); `lines` -> the same for the two sleeps of `naps`, by line number; `tids`:
function -> tid.

Each function waits for one thing: naps (sleep), needs (a lock, while `holds` sleeps with it), reads (a pipe), receives
(a socket), polls (a socket, through poll), joins (a process), burns (twice at once: the interpreter lock, or a CPU).
"""

import json
import os
import select
import socket
import sys
import threading
import time

ROUNDS = 6
off_cpu_ns = {}
lines = {}
tids = {}

lock, lock_is_held = threading.Lock(), threading.Event()
pipe_out, pipe_in = os.pipe()
here, there = socket.socketpair()
polled, poller = socket.socketpair()


def off_ns():
    return time.perf_counter_ns() - time.thread_time_ns()


def naps():
    first = second = 0
    for _ in range(ROUNDS):
        before = off_ns()
        time.sleep(0.03)
        between = off_ns()
        time.sleep(0.015)
        first, second = first + between - before, second + off_ns() - between
    number = naps.__code__.co_firstlineno + 4
    lines.update({number: first, number + 2: second})


def holds():
    with lock:
        lock_is_held.set()
        time.sleep(0.2)


def needs():
    lock_is_held.wait()
    lock.acquire()


def reads():
    for _ in range(ROUNDS):
        os.read(pipe_out, 1)


def writes():
    for _ in range(ROUNDS):
        time.sleep(0.03)
        os.write(pipe_in, b"x")


def receives():
    for _ in range(ROUNDS):
        here.recv(1)


def sends():
    for _ in range(ROUNDS):
        time.sleep(0.03)
        there.send(b"x")


def polls():
    waiting = select.poll()
    waiting.register(polled, select.POLLIN)
    waiting.poll()


def answers():
    time.sleep(0.2)
    poller.send(b"x")


def joins():
    os.waitpid(child, 0)


def burns():
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        sum(range(2000))


def measured(work):
    tids[work.__name__] = threading.get_native_id()
    before = off_ns()
    work()
    off_cpu_ns[work.__name__] = off_cpu_ns.get(work.__name__, 0) + off_ns() - before


def run(*works):
    threads = [threading.Thread(target=measured, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


print("ready", flush=True)
sys.stdin.readline()
child = os.fork()
if not child:
    time.sleep(0.25)
    os._exit(0)
run(naps, holds, needs, reads, writes, receives, sends, polls, answers, joins)
run(burns, burns)
print(json.dumps({"off_cpu_ns": off_cpu_ns, "lines": lines, "tids": tids}), flush=True)
sys.stdin.readline()
