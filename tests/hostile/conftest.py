"""Fixtures: `hostile` starts a program as another user, `attack` runs pprofpy on it and checks the promises."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import CommandLine, interpreter
from tests.hostile.harness import CTRL_C_S, LONGEST_S, Condition, Outcome, Run, duration_of, harm, load

PROGRAMS = Path(__file__).parent / "programs"
NOBODY = 65534
PID = "PID"
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""In the words of a command: the target's pid."""

Program = subprocess.Popen[str]
Attack = Callable[..., Outcome]


def version_told(python: list[str]) -> str:
    """What a Python says that it is; empty if it does not run."""
    code = "import json, os, sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([*python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


class Hostile:
    """Starts programs as another user, each with a copy of the program in a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pprofpy-hostile-"))
        self.folder.chmod(0o755)
        os.chown(self.folder, NOBODY, NOBODY)
        self._started: list[Program] = []

    def __call__(
        self,
        program: str,
        *arguments: str,
        version: str = "system",
        prefix: tuple[str, ...] = (),
        capabilities: tuple[str, ...] = (),
    ) -> Program:
        """Start a program of programs/, and wait until it is ready.

        Args:
            program: The file's name.
            arguments: Of the program.
            version: Which Python, as tests.conftest.interpreter() names it.
            prefix: Words before it, run as root: `("unshare", "--net")`.
            capabilities: What it may do to set itself up, as setpriv names it; it must give them up then.
        """
        also = ",".join(f"+{one}" for one in capabilities)
        granted = [f"--inh-caps={also}", f"--ambient-caps={also}"] if capabilities else []
        words = [*prefix, *self._as_nobody(), *granted, *self._command(program, version), *arguments]
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.folder, start_new_session=True
        )
        self._started.append(process)
        assert process.stdout
        said = process.stdout.readline()
        if said and said != "ready\n":
            pytest.skip(f"{program} says: {said.strip()}")
        assert said, f"{program} ended before it was ready"
        return process

    def _as_nobody(self) -> list[str]:
        if not shutil.which("setpriv"):
            pytest.skip("there is no setpriv here: apt-get install util-linux")
        return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

    def _command(self, program: str, version: str) -> list[str]:
        copy = self.folder / program
        if program.endswith(".c"):
            built = copy.with_suffix("")
            if not built.exists():
                subprocess.run(["cc", "-O1", "-pthread", "-o", built, PROGRAMS / program], check=True)
            return [str(built)]
        shutil.copyfile(PROGRAMS / program, copy)
        copy.chmod(0o644)
        python = interpreter(version)
        if version != "system" and version_told([*self._as_nobody(), python]) != version.rstrip("t"):
            pytest.skip(f"another user cannot run {python}")
        return [python, "-u", str(copy)]

    def close(self) -> None:
        """End all programs and what they have started."""
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(BrokenPipeError), process:
                process.kill()
        shutil.rmtree(self.folder)


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    if os.geteuid() != 0:
        pytest.skip("needs root: pprofpy attacked as root by another user is what is tested")
    programs = Hostile()
    yield programs
    programs.close()


@pytest.fixture
def attack(hostile: Hostile, cli: CommandLine) -> Iterator[Attack]:
    """Run a command of pprofpy on a hostile program, checked in every respect; see README.md."""
    running: list[Run] = []

    def run(
        program: str | Program | int,
        *words: str,
        interrupt: bool | float = False,
        signals: tuple[int, ...] = (signal.SIGINT,),
        restless: bool = False,
        stopped: bool = False,
        extra: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Outcome:
        """Attack.

        Args:
            program: The name of one in programs/, or one that was started by `hostile`, or a pid.
            words: Of the command line; `PID` is replaced.
            interrupt: Send one Ctrl-C, see Run.interrupt.
            signals: What is sent in its place, one after the other.
            restless: The program changes its own threads, files or mappings.
            stopped: The target is stopped, and stays so.
            extra: Variables for pprofpy's environment.
            prefix: Words before pprofpy's: `("prlimit", "--nofile=20")`.
        """
        process = hostile(program) if isinstance(program, str) else program
        pid = process if isinstance(process, int) else process.pid
        before = None if restless else Condition.of(pid)
        line = [str(pid) if word == PID else word for word in words]
        attacker = Run(line, {**cli.environment, **(extra or {})}, prefix)
        running.append(attacker)
        if interrupt is not False:
            attacker.interrupt(interrupt, signals)
        is_to_end = interrupt is not False and not ENDING.isdisjoint(signals)
        longest_s = CTRL_C_S if is_to_end else LONGEST_S + duration_of(line)
        outcome = attacker.wait(longest_s, pid)
        wrong = harm(pid, before, is_stopped=stopped)
        assert wrong == [], f"{line} harmed the target (load {load():.1f}): {wrong}; it said: {outcome.stderr}"
        return outcome

    yield run
    for attacker in running:
        attacker.end()
