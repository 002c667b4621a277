"""Names that a profiler must not trust: of a thread, a function, a file. Prints `ready` once all of them burn."""

import threading
import time

THREAD = "evil \n;\x1b[31m<script>alert(1)</script> (x)"
FILE = "/srv/a b;c\n\x1b[31m<script>.py"
SOURCE = """
def burn(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass
"""

namespace = {"time": time}
exec(compile(SOURCE, FILE, "exec"), namespace)
burn = namespace["burn"]
burn.__code__ = burn.__code__.replace(co_name="thread (1): not a thread")

worker = threading.Thread(target=burn, args=(3600,), name=THREAD, daemon=True)
worker.start()
print("ready", flush=True)
burn(3600)
