"""Run as the first process of a pid namespace: records a process that ends, and whose pid another one gets.

Usage: pid_reuse.py WORDS... of pprofpy, PID in them replaced. Prints what it said, and its status last.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

FIRST = "def first():\n    while True: sum(range(100))\nfirst()"
SECOND = "def second():\n    while True: sum(range(100))\nsecond()"


def start(text):
    return subprocess.Popen(["/usr/bin/python3", "-c", text], preexec_fn=lambda: os.setresuid(65534, 65534, 65534))


first = start(FIRST)
time.sleep(0.3)
words = [str(first.pid) if word == "PID" else word for word in sys.argv[1:]]
said = subprocess.PIPE
recorder = subprocess.Popen([sys.executable, "-m", "pprofpy", *words], stdout=said, stderr=subprocess.STDOUT, text=True)
out = recorder.stdout.readline()
while "recording" not in out and recorder.poll() is None:
    out += recorder.stdout.readline()
time.sleep(0.3)
first.kill()
first.wait()
for _ in range(100):
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
    second = start(SECOND)
    if second.pid == first.pid:
        break
    second.kill()
    second.wait()
out += recorder.stdout.read()
print(out)
print(f"same pid: {second.pid == first.pid}; status {recorder.wait()}")
second.kill()
