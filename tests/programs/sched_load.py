"""Known scheduling loads: waits for a byte on standard input, works, and waits for another before it ends.

When the work is done it says how often its threads lost the CPU, as the kernel's own accounting has it.

sched_load.py messages PAIRS ROUNDS   threads that send each other messages, as hackbench does, beside a spinner
sched_load.py periodic THREADS TICKS  threads that wake up every 2 ms and burn half a millisecond
sched_load.py pingpong ROUNDS         two processes that pass one byte to and fro through pipes
"""

import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial


def messages(pairs: int, rounds: int) -> None:
    finished = threading.Event()

    def send(link: socket.socket) -> None:
        for _ in range(rounds):
            for _ in range(20):
                link.send(b"x" * 100)
            link.recv(1)

    def receive(link: socket.socket) -> None:
        for _ in range(rounds):
            got = 0
            while got < 2000:
                got += len(link.recv(2000 - got))
            link.send(b"y")

    def spin() -> None:
        while not finished.is_set():
            sum(range(1000))

    links = [socket.socketpair() for _ in range(pairs)]
    spinner = threading.Thread(target=spin)
    spinner.start()
    run_all([partial(send, a) for a, _ in links] + [partial(receive, b) for _, b in links])
    finished.set()
    spinner.join()


def periodic(threads: int, ticks: int) -> None:
    def tick() -> None:
        due = time.monotonic()
        for _ in range(ticks):
            due += 0.002
            time.sleep(max(due - time.monotonic(), 0))
            sum(range(20_000))  # asking for the thread's CPU time instead would flood perf with events

    run_all([tick] * threads)


def pingpong(rounds: int) -> None:
    (read_ping, write_ping), (read_pong, write_pong) = os.pipe(), os.pipe()
    if os.fork() == 0:
        for _ in range(rounds):
            os.write(write_pong, os.read(read_ping, 1))
        os._exit(0)
    for _ in range(rounds):
        os.write(write_ping, b"x")
        os.read(read_pong, 1)
    os.wait()


def switches() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw + usage.ru_nivcsw


def run_all(jobs: Sequence[Callable[[], None]]) -> None:
    workers = [threading.Thread(target=job) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    loads: dict[str, Callable[..., None]] = {"messages": messages, "periodic": periodic, "pingpong": pingpong}
    print("ready", flush=True)
    os.read(0, 1)
    before = switches()
    loads[sys.argv[1]](*map(int, sys.argv[2:]))
    print("done", switches() - before, flush=True)
    os.read(0, 1)
