"""First process of an emulated machine in which pprofpy runs (scripts/kernels.sh): runs programs with known answers,
records them, and hands the recordings out through the console. Standard library only.

Reads /steps.json: a list of objects with `name`, `program` (arguments of Python), `record` (arguments of pprofpy, PID
stands for the program's), `begins` (does the program wait for a line?), `suffix` (of the file). For each step it prints

    guest: {"name": ..., "status": ..., "said": ..., "program": ..., "file": ...}

the exit status of pprofpy, what it wrote to standard error, what the program printed, and the recording in base64.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import platform
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

LIMIT_S = 600
POWER_OFF = 0x4321FEDC
PR_CAPBSET_DROP, CAP_SYS_NICE = 24, 23
MOUNTS = (
    ("proc", "/proc", "proc"), ("sysfs", "/sys", "sysfs"), ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/dev/shm", "tmpfs"), ("tmpfs", "/tmp", "tmpfs"), ("tracefs", "/sys/kernel/tracing", "tracefs"),
)  # fmt: skip
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, place: str, kind: str) -> None:
    Path(place).mkdir(parents=True, exist_ok=True)
    if libc.mount(source.encode(), place.encode(), kind.encode(), 0, None):
        print(f"guest cannot mount {place}: {os.strerror(ctypes.get_errno())}", flush=True)


def python(*arguments: str, **options: Any) -> Any:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *arguments], cwd="/tmp", **{**pipes, **options})


def without_priority() -> None:
    """For programs that put themselves ahead of all others: there is one CPU, which pprofpy needs, too."""
    libc.prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0)


def record(arguments: list[str], program: Any, begins: bool) -> tuple[int, str]:
    """Returns pprofpy's exit status and what it wrote; the program goes on once it is watched."""
    recorder = python(
        "-m", "pprofpy", *(one.replace("PID", str(program.pid)) for one in arguments), stdout=subprocess.DEVNULL
    )
    watchdog = threading.Timer(LIMIT_S, recorder.kill)
    watchdog.start()
    said = []
    for line in recorder.stderr:
        said.append(line)
        if begins and line.startswith("recording "):
            program.stdin.write("\n")
            program.stdin.flush()
    status = recorder.wait()
    watchdog.cancel()
    return status, "".join(said)


def run(step: dict[str, Any]) -> dict[str, Any]:
    program = python(*step["program"], stderr=subprocess.DEVNULL, preexec_fn=without_priority)
    path = Path("/tmp/recording" + step["suffix"])
    try:
        if program.stdout.readline() != "ready\n":
            return {"name": step["name"], "status": -1, "said": "the program did not begin"}
        status, said = record([*step["record"], "-o", str(path)], program, step["begins"])
        printed = program.stdout.readline() if step["begins"] and not status else ""
    finally:
        program.kill()
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    return {
        "name": step["name"], "status": status, "said": said, "program": printed,
        "file": base64.b64encode(content).decode(),
    }  # fmt: skip


def main() -> None:
    for one in MOUNTS:
        mount(*one)
    os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", HOME="/root", PYTHONPATH="/pprofpy")
    Path("/root").mkdir(exist_ok=True)
    print(f"kernel: Linux {platform.release()} is up", flush=True)
    for step in json.loads(Path("/steps.json").read_text()):
        found = run(step)
        print("guest:", json.dumps(found), flush=True)
        print(f"kernel: {step['name']}: status {found['status']}", flush=True)
        if found["status"]:
            print("kernel:    ", found["said"].strip().replace("\n", "; "), flush=True)
    print("kernel: done", flush=True)


try:
    main()
except BaseException:
    traceback.print_exc()
finally:
    sys.stdout.flush()
    os.sync()
    libc.reboot(POWER_OFF)
