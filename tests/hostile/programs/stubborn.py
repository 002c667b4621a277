"""Ignores every signal that can be ignored, forks children that live for a moment, and never waits for them in time."""

import contextlib
import os
import signal
import time

for number in range(1, signal.NSIG):
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
while True:
    child = os.fork()
    if not child:
        kept = [bytes(1000) for _ in range(1000)]
        time.sleep(0.01)
        os._exit(0)
    time.sleep(0.002)
