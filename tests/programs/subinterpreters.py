"""Goes into other interpreters of its process; burns (as burn.py does), sleeps or keeps memory there. Prints `ready`.

Nothing but the functions of the inner program belongs to a stack then: where it was entered is another interpreter's.
Runs on every Python from 3.8 on.

    subinterpreters.py HOW (burn | sleep | keep)

    inside    the main thread is in one interpreter
    nested    it is in an old one, which it has entered from a newer one
    borrowed  another thread is in one that the main thread has made
    each      two threads are in one each, which they have made; before 3.12 the second one may never get the lock
"""

import os
import sys
import threading
from pathlib import Path

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

NO_ARGUMENTS = "import sys; sys.argv = ['']\n"
SLEEP = """
import time
def sleep_there():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
sleep_there()
"""
KEEP = """
import time
kept = []
def keep_there():
    print("ready", flush=True)
    while len(kept) < 3000:
        kept.append(bytearray(10_000))
        time.sleep(0.001)
    time.sleep(3600)
keep_there()
"""
ENTER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
def enter_again():
    interpreters.run_string({interpreter}, {source!r})
enter_again()
"""


def enter(interpreter, source):
    interpreters.run_string(interpreter, source)


def make_and_enter(source):
    enter(interpreters.create(), source)


def main(how, work):
    plans = {"sleep": SLEEP, "keep": KEEP}
    source = plans.get(work) or NO_ARGUMENTS + Path(__file__).with_name("burn.py").read_text()
    old = interpreters.create()
    if how == "inside":
        make_and_enter(source)
    elif how == "nested":
        make_and_enter(ENTER.format(interpreter=int(old), source=source))
    elif how == "borrowed":
        thread = threading.Thread(target=enter, args=(old, source))
        thread.start()
        thread.join()
    else:
        ready, say = os.pipe()
        source = source.replace('print("ready", flush=True)', f"__import__('os').write({say}, b'.')")
        for _ in range(2):
            threading.Thread(target=make_and_enter, args=(source,)).start()
            os.read(ready, 1)
        print("ready", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
