"""Six threads that burn, nap and make system calls, each in functions of its own, and children that come and go.

Prints `ready` first.
"""

import os
import threading
import time

WORK = """
def burn_{0}(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        os.getppid()
        bytearray(200_000)

def work_{0}():
    while True:
        burn_{0}(0.002)
        time.sleep(0.001)
"""

for name in "abcdef":
    exec(WORK.format(name))
    threading.Thread(target=globals()["work_" + name], daemon=True).start()
print("ready", flush=True)
while True:
    children = []
    for _ in range(3):
        children.append(os.fork())
        if not children[-1]:
            time.sleep(0.1)
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
