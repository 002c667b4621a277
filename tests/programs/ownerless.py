"""Starts the sampler again and again for a pprofpy that was killed before: nobody holds the control file's lock.

Usage: ownerless.py SAMPLER ROUNDS. Prints `ready`, and `over` at the end.
"""

import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec

NAME = "_pprofpy_sampler"
loader = ExtensionFileLoader(NAME, sys.argv[1])
sampler = loader.create_module(ModuleSpec(NAME, loader, origin=sys.argv[1]))
loader.exec_module(sampler)
print("ready", flush=True)
for _ in range(int(sys.argv[2])):
    sampler.open(os.memfd_create("control"))
    sampler.start(1000.0, 64)
    while any(sampler.state()[:2]):
        bytes(5000)
print("over", flush=True)
