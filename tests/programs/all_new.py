"""Never does the same thing twice: each thread, name, code object, line, file and child is a new one.

    all_new.py [RATE [CHILDREN]]     RATE (20) new threads a second, CHILDREN (0.5) forks a second, each tenth an exec

Each thread runs code of its own, from a file of its own: it naps, competes for the interpreter lock, and writes to a
file that it has made. Nothing is kept: the program itself does not grow.
"""

import os
import sys
import threading
import time

NAP_S, LOOPS = 0.002, 12_000

SOURCE = """
def compute_{number}(loops):
    total = 0
    for _ in range(loops):
        total += 1
    return total

def nap_{number}(seconds, sleep):
    sleep(seconds)

def work_{number}(seconds, loops, sleep, use_file):
    use_file("file-{number}")
    nap_{number}(seconds, sleep)
    compute_{number}(loops)
    nap_{number}(seconds, sleep)
"""


def use_file(name):
    file = os.memfd_create(name)
    os.write(file, b"new")
    os.close(file)


def work(number):
    """What one thread does: compiled for it alone."""
    space = {}
    exec(compile("\n" * (number % 1000) + SOURCE.format(number=number), f"/srv/all_new/{number}.py", "exec"), space)
    return space[f"work_{number}"]


def child(number):
    pid = os.fork()
    if pid:
        return pid
    if number % 10 == 0:
        os.execv(sys.executable, [sys.executable, "-S", "-c", f"number = {number}\nfor _ in range(20000): number += 1"])
    work(number)(NAP_S, LOOPS, time.sleep, use_file)
    os._exit(0)


def main():
    rate, children_rate = (*map(float, sys.argv[1:3]), *(20.0, 0.5)[len(sys.argv[1:3]) :])
    sys.setswitchinterval(1e-3)
    print("ready", flush=True)
    begin_s, number, born = time.monotonic(), 0, 0
    alive = []
    while True:
        passed_s = time.monotonic() - begin_s
        if number >= passed_s * rate:
            time.sleep(min(0.01, number / rate - passed_s + 1e-4))
            continue
        for _ in range(2):  # two at a time, so that they compete
            number += 1
            words = (NAP_S, LOOPS, time.sleep, use_file)
            alive.append(threading.Thread(target=work(number), args=words, name=f"new-{number}"))
            alive[-1].start()
        while len(alive) > 4:
            alive.pop(0).join()
        if born < passed_s * children_rate:
            born += 1
            os.waitpid(child(10_000_000 + born), 0)


if __name__ == "__main__":
    main()
