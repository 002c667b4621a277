"""Starts so many threads, all waiting but one, and prints `ready`; `fewer` if it may not have them. Usage: COUNT"""

import sys
import threading
import time

threading.stack_size(64 << 10)
ended = threading.Event()
try:
    for _ in range(int(sys.argv[1])):
        threading.Thread(target=ended.wait, daemon=True).start()
except RuntimeError:
    print("fewer", flush=True)
else:
    print("ready", flush=True)
while True:
    kept = [bytes(1000) for _ in range(1000)]
    time.sleep(0.001)
