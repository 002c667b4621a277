"""A thousand threads that burn for a moment and nap for long, each at its own pace, and the main thread among them.

Usage: crowd.py THREADS
"""

import sys
import threading
import time

threading.stack_size(128 * 1024)
turn = threading.Lock()
"""One after the other: each of hundreds who wait for the interpreter's own lock wakes up 200 times a second."""


def burn_for(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(300))


def burn_and_nap(first_s, nap_s):
    time.sleep(first_s)  # else each would burn while the next one is to start
    while True:
        with turn:
            burn_for(0.001)
        time.sleep(nap_s)


def burn_in_main():
    while True:
        burn_for(0.001)
        time.sleep(0.02)


for number in range(int(sys.argv[1])):
    more_s = number % 97 / 48
    threading.Thread(target=burn_and_nap, args=(more_s, 3 + more_s), daemon=True).start()
print("ready", flush=True)
burn_in_main()
