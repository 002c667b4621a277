"""Eight threads with so many frames that nobody reads all their stacks a thousand times a second."""

import sys
import threading


def down(frames):
    if frames:
        down(frames - 1)
    while True:
        pass


sys.setrecursionlimit(10_000)
threading.stack_size(64 << 20)
for _ in range(8):
    threading.Thread(target=down, args=(900,), daemon=True).start()
print("ready", flush=True)
down(900)
