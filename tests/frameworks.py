"""What people really run: each framework is installed, started and put to work, and every command meets it.

`make frameworks` runs it: it takes minutes and downloads much, so it is no part of the suite. For each framework:

* `--name` finds its processes: one is taken, or the message names a command that works as it stands;
* `cpu --name ... --subprocesses` spends most of its samples in the application's function;
* `cpu --pid MASTER` of a master that waits tells the command that records its children;
* `heap`, `gil` and `off-cpu` of the process that works name the application; `doctor` finds nothing amiss with it.

    python -m tests.frameworks FOLDER [NAME...]
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pprofpy import target as targets
from pprofpy.errors import PprofpyError
from pprofpy.target import procfs

PACKAGES = ("django", "gunicorn", "celery", "uvicorn", "flask", "uwsgi", "pyinstaller", "nuitka", "setproctitle")
_CLIENTS = 4
"""So many at once, so that each of two workers gets something to do."""
APPLICATION = """
import time

KEPT = []


def burn():
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass


def keep():
    KEPT.append(bytearray(20_000))


def serve():
    burn()
    keep()
"""
FILES = {
    "work.py": APPLICATION,
    "wsgi.py": """
from work import serve


def application(environment, start_response):
    serve()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
""",
    "asgi.py": """
from work import serve


async def application(scope, receive, send):
    if scope["type"] == "http":
        serve()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
""",
    "site_of_django.py": """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from work import serve

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="none")


def view(request):
    serve()
    return HttpResponse("ok")


urlpatterns = [path("", view)]
application = get_wsgi_application()
""",
    "site_of_flask.py": """
from flask import Flask

from work import serve

app = Flask(__name__)


@app.route("/")
def view():
    serve()
    return "ok"
""",
    "tasks.py": """
from celery import Celery

from work import serve

app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {name: "broker" for name in ("data_folder_in", "data_folder_out")}


@app.task
def job():
    serve()
""",
    "produce.py": """
import time

from tasks import job

while True:
    job.delay()
    time.sleep(0.03)
""",
    "pool.py": """
import multiprocessing
import time

import work


def job(_):
    work.serve()


if __name__ == "__main__":
    with multiprocessing.get_context("METHOD").Pool(2) as pool:
        while True:
            pool.map(job, range(10))
            time.sleep(0.01)
""",
    "alone.py": """
import time

import work

while True:
    work.serve()
    time.sleep(0.01)
""",
}


@dataclass(frozen=True)
class Framework:
    """How one is started.

    Attributes:
        name: What it is called here, and what its folder's name holds: `--name` looks for that.
        command: A shell's words; BIN is the folder of its programs, PORT a free port, HERE its folder, NAME its name.
        prepare: Run before, to its end.
        beside: Runs beside it: gives it work.
    """

    name: str
    command: str
    prepare: str = ""
    beside: str = ""

    @property
    def serves(self) -> bool:
        """Does it wait for requests?"""
        return "PORT" in self.command


FRAMEWORKS = (
    Framework("gunicorn-django", "BIN/gunicorn -n NAME -w 2 -b 127.0.0.1:PORT --chdir HERE site_of_django:application"),
    Framework("uvicorn", "BIN/uvicorn --workers 2 --port PORT --app-dir HERE asgi:application"),
    Framework("flask-reloader", "BIN/flask --app HERE/site_of_flask.py run --debug --port PORT"),
    Framework(
        "uwsgi", "BIN/uwsgi --master --processes 2 --http-socket 127.0.0.1:PORT --wsgi-file HERE/wsgi.py"
    ),
    Framework(
        "celery", "BIN/celery --workdir HERE -A tasks worker -n NAME --concurrency 2",
        prepare="mkdir -p HERE/broker", beside="BIN/python produce.py",
    ),
    Framework("multiprocessing-fork", "BIN/python HERE/pool.py", prepare="sed -i s/METHOD/fork/ HERE/pool.py"),
    Framework("multiprocessing-spawn", "BIN/python HERE/pool.py", prepare="sed -i s/METHOD/spawn/ HERE/pool.py"),
    Framework("shell", "sh -c 'BIN/python HERE/alone.py & BIN/python HERE/alone.py & wait'"),
    Framework(
        "pyinstaller", "HERE/dist/alone", prepare="cd HERE && BIN/pyinstaller --onefile --log-level ERROR HERE/alone.py"
    ),
    Framework(
        "nuitka", "HERE/alone.bin",
        prepare="cd HERE && BIN/python -m nuitka --quiet --follow-import-to=work --output-dir=HERE HERE/alone.py",
    ),
)  # fmt: skip


class TroubleError(Exception):
    """A framework is not treated as it should be."""


def pprofpy(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours."""
    command = [sys.executable, "-m", "pprofpy", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
        env={**os.environ, "PPROFPY_DIR": tempfile.gettempdir() + "/pprofpy-frameworks"},
    )  # fmt: skip


def expect(done: subprocess.CompletedProcess[str], *texts: str) -> str:
    """Its output, if it succeeded and says all of these."""
    said = done.stdout + done.stderr
    missing = [text for text in texts if not re.search(text, said)]
    if done.returncode or missing:
        words = shlex.join(done.args[3:])
        raise TroubleError(f"{words} ended with {done.returncode} and does not say {missing}:\n{said}")
    return said


def share_of(function: str, said: str) -> float:
    """The share that a table gives to a function and what it calls, in percent."""
    found = [re.findall(r"([\d.]+)%", line) for line in said.splitlines() if line.rstrip().endswith(function)]
    return max((float(shares[-1]) for shares in found if shares), default=0.0)


def chosen_by_name(name: str) -> str:
    """What comes of `--name` alone: it records, or the command that it names does."""
    done = pprofpy("cpu", "--name", name, "-d", "1")
    if not done.returncode:
        return "taken"
    offers = re.findall(r"--pid \d+ --subprocesses", done.stderr) or re.findall(r"--pid \d+", done.stderr)
    if not offers:
        raise TroubleError(f"--name offers nothing: {done.stderr}")
    expect(pprofpy("cpu", *offers[0].split(), "-d", "1"))
    return "names " + ("the family" if "--subprocesses" in offers[0] else f"{len(offers)} processes")


def members(name: str) -> dict[int, int]:
    """The Python processes of a framework -> the CPU time that each uses in a while, in nanoseconds.

    Those that multiprocessing spawns do not have the name in their command lines.
    """
    found = {target.pid for target in targets.python_processes(name)}
    for pid in [child for parent in found for child in targets.descendants_of(parent)]:
        with suppress(PprofpyError):
            found.add(targets.open_target(pid).pid)
    before = {pid: procfs.stat(pid).cpu_ns for pid in found}
    time.sleep(1)
    return {pid: procfs.stat(pid).cpu_ns - cpu_ns for pid, cpu_ns in before.items()}


def examine(framework: Framework, name: str) -> list[str]:
    """Every command meets it; what is to be told of each."""
    told = [chosen_by_name(name)]
    used = members(name)
    worker, master = max(used, key=lambda pid: used[pid]), min(used)
    family = ["--name", name, "--subprocesses"]
    said = expect(pprofpy("cpu", *family, "-d", "2"))
    share = share_of("work.burn", said)
    if share < 60:
        raise TroubleError(f"cpu {' '.join(family)}: {share} % in work.burn:\n{said}")
    told.append(f"{share:.0f} % in burn")
    if worker != master and used[master] < 0.1e9 and framework.name != "shell":
        expect(pprofpy("cpu", "--pid", str(master), "-d", "1"), f"cpu --pid {master} --subprocesses")
        told.append("tells of children")
    else:
        told.append("-")
    expect(pprofpy("heap", "--pid", str(worker), "-d", "2", "--sample-bytes", "16k"), r"work\.keep")
    for command in ("gil", "off-cpu"):
        expect(pprofpy(command, "--pid", str(worker), "-d", "1"), r"work\.|wsgi|asgi")
    expect(pprofpy("doctor", "--pid", str(worker)), "'pprofpy cpu' works")
    return [*told, "ok", "ok", "ok", "ok"]


@contextmanager
def running(framework: Framework, tools: Path) -> Iterator[str]:
    """Start it, and give it work; yields a name that only its command lines hold."""
    with tempfile.TemporaryDirectory(prefix=f"pprofpy-{framework.name}-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        for file, text in FILES.items():
            (Path(folder) / file).write_text(text)

        def shell(line: str, **options: object) -> subprocess.Popen[bytes]:
            line = line.replace("BIN", str(tools)).replace("HERE", folder).replace("PORT", str(port))
            line = line.replace("NAME", Path(folder).name)
            nothing = subprocess.DEVNULL
            return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
                line if options else shlex.split(line), cwd=folder, stdout=nothing, stderr=nothing,
                start_new_session=True, **options,
            )  # fmt: skip

        if framework.prepare and shell(framework.prepare, shell=True).wait():
            raise TroubleError(f"{framework.prepare} failed")
        started = [shell(line) for line in (framework.command, framework.beside) if line]
        is_over = threading.Event()
        clients = [
            threading.Thread(target=request, args=(port, is_over)) for _ in range(_CLIENTS if framework.serves else 0)
        ]
        for client in clients:
            client.start()
        try:
            time.sleep(5)
            yield Path(folder).name
        finally:
            is_over.set()
            for client in clients:
                client.join()
            for process in started:
                with suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def request(port: int, is_over: threading.Event) -> None:
    """Ask a server again and again."""
    while not is_over.wait(0.005):
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()


def main(folder: Path, names: list[str]) -> int:
    """Install what is missing, and go through all of them, or those that are named."""
    tools = folder / "bin"
    if not (tools / "uwsgi").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(tools / "pip"), "install", "--quiet", *PACKAGES], check=True)
    print(
        "| framework | `--name` | `cpu --subprocesses` | `cpu` of the master | `heap` | `gil` | `off-cpu` | `doctor` |"
    )
    failures = 0
    for framework in FRAMEWORKS:
        if names and framework.name not in names:
            continue
        try:
            with running(framework, tools) as name:
                row = examine(framework, name)
        except TroubleError as trouble:
            failures += 1
            row = [f"FAILED: {trouble}"]
        print(f"| {framework.name} | {' | '.join(row)} |", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute(), sys.argv[2:]))
