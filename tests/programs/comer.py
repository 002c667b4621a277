"""Burns CPU time in a function that is called as the word it is given says; prints `ready` once it does.

With a second word it starts another of itself with that one, and ends with it.

Usage: comer.py NAME [CHILD]
"""

import os
import subprocess
import sys

NAME = sys.argv[1]
exec(f"def {NAME}():\n    for _ in range(100_000):\n        pass")

if sys.argv[2:]:
    child = subprocess.Popen([sys.executable, __file__, sys.argv[2]], stdout=subprocess.PIPE)
    child.stdout.readline()
print("ready", flush=True)
parent = os.getppid()
while os.getppid() == parent:
    globals()[NAME]()
