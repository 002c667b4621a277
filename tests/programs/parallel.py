"""Threads that burn at the same time, each 50, 30, 15 and 5 % of its own CPU time in four functions (see burn.py).

Each thread begins in a function that bears its name. Prints `ready` once all of them run.

Usage: parallel.py [THREADS]
"""

import sys
import threading

from burn import burn_round

BEGIN = """
def {name}():
    running.wait()
    while True:
        burn_round()
"""


def main(count):
    space = {"burn_round": burn_round, "running": threading.Barrier(count + 1)}
    for name in [f"burner_{number}" for number in range(count)]:
        exec(BEGIN.format(name=name), space)
        threading.Thread(target=space[name], name=name, daemon=True).start()
    space["running"].wait()
    print("ready", flush=True)
    threading.Event().wait()


main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
