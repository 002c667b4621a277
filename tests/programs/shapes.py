"""Servers by the shape of their processes: a master that only waits, and children that work. Prints `ready`.

    shapes.py NAME reloader   starts itself again and waits, as `flask run --debug` does
    shapes.py NAME fork       a multiprocessing pool of two; NAME is in the command lines of all
    shapes.py NAME spawn      the same, of processes whose command lines are multiprocessing's own

The children end with their master.
"""

import multiprocessing
import os
import subprocess
import sys


def work(master):
    while os.getppid() == master:
        compute()
    os._exit(0)  # a pool without its master complains


def compute():
    sum(range(20_000))


def start_again(*words):
    subprocess.call([sys.executable, __file__, *words, str(os.getpid())])


def start_pool(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        pool.map(work, [os.getpid()] * 2)


def main(name, shape, master=None):
    if master:
        work(int(master))
        return
    print("ready", flush=True)
    if shape == "reloader":
        start_again(name, shape)
    else:
        start_pool(shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
