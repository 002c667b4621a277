"""What the tests of attaching share."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from pprofpy.target import Target, open_target

ROOT = Path(__file__).parents[1]
OLD_AND_NEW = ["3.8", "3.12", "3.13"]
TWO_IDLE_THREADS = """
import threading, time
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
print("ready", flush=True)
time.sleep(3600)
"""


def attach_to(process: subprocess.Popen[str]) -> Target:
    return open_target(process.pid)


def traced_or_stopped(tid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{tid}/status").read_text()
        return "TracerPid:\t0\n" not in status or "State:\tt" in status
    return False
