"""Check what works on this machine and for one process; each finding has its remedy.

A Check never guesses: what could not be found out says so.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pprofpy import arch
from pprofpy import target as targets
from pprofpy.collectors import attach, programs
from pprofpy.collectors.heapagent.link import SAMPLER, sampler_library
from pprofpy.collectors.pyspy import executable, known_pythons
from pprofpy.errors import PprofpyError
from pprofpy.session.circumstances import standstill
from pprofpy.system import landlock
from pprofpy.system.privileges import (
    NEEDED,
    PROBES,
    Capability,
    in_words,
    lacking,
    perf_level,
    perf_takes_administrator,
)
from pprofpy.target import CAP_SYS_PTRACE, Target, has_capability, procfs, user_namespace_error, with_sudo
from pprofpy.target.compiled import NUITKA_NOTE, is_by_nuitka
from pprofpy.target.freezer import refuse_frozen
from pprofpy.target.usage import usage
from pprofpy.text import counted

CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 21, 38, 39
_TRIAL_TIMEOUT_S = 20
_WALK_S, _WALK_RATE_HZ = 0.3, 997


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One fact.

    Attributes:
        topic: What was looked at.
        verdict: Whether it is as needed.
        finding: What was found.
        remedy: The command, or the step, that mends it; empty where nothing is to be mended.
        needed_for: The commands that do not work otherwise.
    """

    topic: str
    verdict: Verdict
    finding: str
    remedy: str = ""
    needed_for: str = ""


def examine(pid: int | None) -> list[Check]:
    """Check the machine, and the process if one is named."""
    checks = [check() for check in _MACHINE_CHECKS]
    return checks if pid is None else [*checks, *_process_checks(pid)]


def cpu_works(checks: list[Check]) -> bool:
    """Return True if `pprofpy cpu` can work."""
    return not any(check.verdict is Verdict.FAILED and "cpu" in check.needed_for.split() for check in checks)


# -- the machine ---------------------------------------------------------------------------------------------------


def _system() -> Check:
    system, machine = platform.system(), platform.machine()
    finding = f"{system} {platform.release()} on {machine}"
    if system != "Linux":
        return Check("system", Verdict.FAILED, finding, "pprofpy needs Linux", "cpu kernel")
    if not arch.is_known():
        return Check("system", Verdict.WARNING, finding, "the kernel engines need x86-64 or arm64", "kernel heap")
    if not arch.can_attach():
        return Check("system", Verdict.WARNING, finding, "heap needs x86-64: the other commands work here", "heap")
    return Check("system", Verdict.OK, finding)


def _own_python() -> Check:
    return Check("our Python", Verdict.OK, f"{platform.python_version()} at {sys.executable}")


def _pyspy() -> Check:
    """Find py-spy; 'pprofpy cpu' needs it only where the kernel cannot walk stacks."""
    try:
        return Check("py-spy", Verdict.OK, f"{executable.version()} at {executable.find_program()}")
    except PprofpyError as error:
        if can_probe():
            return Check("py-spy", Verdict.WARNING, error.message, error.hint, "pyspy")
        return Check("py-spy", Verdict.FAILED, error.message, error.hint, "cpu")


def _ptrace() -> Check:
    """Check the right to inspect other processes: a capability of root's, which containers take away."""
    scope = _read("/proc/sys/kernel/yama/ptrace_scope")
    about = {"": "no Yama", "0": "ptrace_scope 0"}.get(scope, f"ptrace_scope {scope}")
    if scope == "3":
        finding = f"{about}: nobody may inspect a process until the next boot"
        return Check("ptrace", Verdict.FAILED, finding, "sysctl -w kernel.yama.ptrace_scope=1, then reboot", "cpu heap")
    if has_capability(CAP_SYS_PTRACE):
        return Check("ptrace", Verdict.OK, f"any process (CAP_SYS_PTRACE; {about})")
    if os.geteuid() == 0:
        finding = f"root without CAP_SYS_PTRACE ({about}): a container?"
        return Check("ptrace", Verdict.WARNING, finding, "start the container with --cap-add SYS_PTRACE", "cpu heap")
    if scope in ("", "0"):
        return Check(
            "ptrace",
            Verdict.WARNING,
            f"own processes only ({about})",
            f"for others': {with_sudo()}; or grant {Capability.SYS_PTRACE}",
        )
    finding = f"only programs that pprofpy starts itself ({about})"
    return Check(
        "ptrace",
        Verdict.WARNING,
        finding,
        f"for running ones: {with_sudo()}; or grant {Capability.SYS_PTRACE}",
        "cpu heap",
    )


def _capabilities() -> Check:
    if error := user_namespace_error():
        return Check("eBPF privilege", Verdict.WARNING, error.message, error.hint, "kernel")
    held = [str(one) for one in (Capability.SYS_ADMIN, *PROBES) if not lacking([one])]
    if not (missing := lacking(PROBES)):
        return Check("eBPF privilege", Verdict.OK, ", ".join(sorted(held)))
    finding = ", ".join(held) or f"neither {' nor '.join(map(str, missing))}"
    remedy = (
        f"add {in_words(missing)}" if os.geteuid() == 0 else f"run {with_sudo('off-cpu')}; or grant {in_words(missing)}"
    )
    return Check("eBPF privilege", Verdict.WARNING, finding, remedy, "kernel")


def _other_users() -> Check:
    """Check which commands can record processes of other users."""
    missing = {command: lacking(own | others) for command, (own, others) in NEEDED.items()}
    works = [command for command, capabilities in missing.items() if not capabilities]
    finding = f"can be recorded by: {', '.join(works) or 'no command'}"
    if len(works) == len(missing):
        return Check("other users", Verdict.OK, "can be recorded by every command")
    wants: dict[str, list[str]] = {}
    for command, capabilities in missing.items():
        if capabilities:
            wants.setdefault(in_words(capabilities), []).append(command)
    remedy = "; ".join(f"grant {capabilities} for: {', '.join(commands)}" for capabilities, commands in wants.items())
    return Check("other users", Verdict.WARNING, finding, remedy)


def _perf() -> Check:
    level = perf_level()
    if level < 0 and not _read("/proc/sys/kernel/perf_event_paranoid"):
        return Check(
            "perf events", Verdict.WARNING, "the kernel has none", "use a kernel with CONFIG_PERF_EVENTS", "kernel"
        )
    if has_capability(CAP_SYS_ADMIN) or level <= 1 or (has_capability(CAP_PERFMON) and not perf_takes_administrator()):
        return Check("perf events", Verdict.OK, f"perf_event_paranoid {level}")
    lacks = "and this kernel then asks for CAP_SYS_ADMIN" if has_capability(CAP_PERFMON) else "and no CAP_PERFMON"
    remedy = f"sudo sysctl -w kernel.perf_event_paranoid={2 if has_capability(CAP_PERFMON) else 1}"
    return Check("perf events", Verdict.WARNING, f"perf_event_paranoid {level}, {lacks}", remedy, "kernel")


def _btf() -> Check:
    path = Path("/sys/kernel/btf/vmlinux")
    if path.exists():
        return Check("BTF", Verdict.OK, f"{path}, {path.stat().st_size >> 20} MB")
    return Check("BTF", Verdict.WARNING, f"no {path}", "use a kernel with CONFIG_DEBUG_INFO_BTF=y", "kernel")


def _tracefs() -> Check:
    for folder in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        try:
            if (Path(folder) / "events" / "sched").is_dir():
                return Check("tracefs", Verdict.OK, folder)
        except PermissionError:
            return Check(
                "tracefs",
                Verdict.WARNING,
                f"{folder} is closed to us",
                f"run as root: {with_sudo('off-cpu')}",
                "kernel",
            )
    mount = "sudo mount -t tracefs nodev /sys/kernel/tracing"
    return Check("tracefs", Verdict.WARNING, "not mounted", mount, "kernel")


def _programs() -> Check:
    """Report where the programs for the kernel come from: this package, or bcc."""
    try:
        return Check("eBPF programs", Verdict.OK, programs.origin())
    except PprofpyError as error:
        return Check("eBPF programs", Verdict.WARNING, error.message, error.hint, "kernel")


def _heap_sampler() -> Check:
    """Compiled when pprofpy was installed, if there was a compiler."""
    if sampler_library() is not None:
        return Check("heap sampler", Verdict.OK, str(SAMPLER))
    remedy = "sudo apt-get install gcc libc6-dev, then: pip install --force-reinstall --no-cache-dir pprofpy"
    return Check("heap sampler", Verdict.WARNING, "not compiled: 'pprofpy heap' only has tracemalloc", remedy)


def _confinement() -> Check:
    """Report containers and system-call filters: no fault, but the cause of many."""
    filtered = procfs.status("self").seccomp
    signs = [name for name in ("/.dockerenv", "/run/.containerenv") if Path(name).exists()]
    facts = [*(["system calls are filtered (seccomp)"] if filtered else []), *(f"container ({sign})" for sign in signs)]
    if not facts:
        return Check("confinement", Verdict.OK, "no container, no system-call filter seen")
    remedy = "if something is refused: --cap-add SYS_PTRACE --security-opt seccomp=unconfined"
    return Check("confinement", Verdict.WARNING, ", ".join(facts), remedy)


def _views() -> Check:
    """What the kernel can hold commands to that read recordings, should one of these lead them astray."""
    known = landlock.version()
    if known:
        finding = f"write only where they are told (Landlock {known}); other processes and networks are out of reach"
        return Check("views", Verdict.OK, finding)
    remedy = "use a kernel with CONFIG_SECURITY_LANDLOCK=y, and landlock in lsm= on its command line"
    return Check("views", Verdict.WARNING, "can write what this user can: this kernel has no Landlock", remedy)


_MACHINE_CHECKS: tuple[Callable[[], Check], ...] = (
    _system, _own_python, _pyspy, _ptrace, _confinement, _capabilities, _other_users, _perf, _btf, _tracefs, _programs,
    _heap_sampler, _views,
)  # fmt: skip


# -- one process ---------------------------------------------------------------------------------------------------


def _process_checks(pid: int) -> Iterator[Check]:
    """Check a process in the order in which recording can fail; skip what depends on a failed check."""
    try:
        target = targets.open_target(pid)
    except PprofpyError as error:
        yield Check(f"process {pid}", Verdict.FAILED, error.message, error.hint, "cpu heap")
        return
    count = len(target.threads())
    yield Check(f"process {pid}", Verdict.OK, f"{target.name}, user {target.user}, {counted(count, 'thread')}")
    yield Check("its usage", Verdict.OK, f"{usage(pid)}, {_children(pid)}")
    yield _version(target)
    yield _namespaces(target)
    yield _state(target)
    yield from _of_cpu(_walk(target), _trial(target))
    yield _way_in(target)


def _children(pid: int) -> str:
    count = len(targets.descendants_of(pid))
    return f"{count} child process{'es' * (count != 1)}"


def _version(target: Target) -> Check:
    finding = f"{target.interpreter}, {target.interpreter.path}"
    if target.interpreter.implementation != "CPython":
        return Check("its Python", Verdict.FAILED, finding, "run the program on CPython", "cpu heap")
    if reason := known_pythons.doubt(target.interpreter.version):
        return Check("its Python", Verdict.WARNING, finding, f"{reason}: see the trial below")
    return Check("its Python", Verdict.OK, finding)


def _namespaces(target: Target) -> Check:
    foreign = {"pids": target.in_other_pid_namespace, "files": target.in_other_mount_namespace}
    found = [name for name, is_foreign in foreign.items() if is_foreign]
    if not found:
        return Check("its namespaces", Verdict.OK, "the same as ours")
    note = f"it sees other {' and '.join(found)} than we do (a container); source is read through {target.root}"
    return Check("its namespaces", Verdict.OK, note)


def can_probe() -> bool:
    """Can programs be loaded into this kernel?"""
    from pprofpy.collectors.kernel import require

    with suppress(PprofpyError):
        require()
        return True
    return False


def _state(target: Target) -> Check:
    if problem := standstill(target):
        sentence, _, remedy = problem.removesuffix(".").partition("; ")
        return Check("its state", Verdict.WARNING, sentence, remedy, "heap")
    if is_by_nuitka(target):
        return Check("its state", Verdict.OK, f"it can run. {NUITKA_NOTE}")
    return Check("its state", Verdict.OK, "it can run")


def _of_cpu(walk: Check, trial: Check) -> tuple[Check, Check]:
    """Judge both ways to read stacks: 'pprofpy cpu' needs one of them."""
    if walk.verdict is Verdict.OK and trial.verdict is Verdict.FAILED:
        return walk, replace(trial, verdict=Verdict.WARNING, needed_for="pyspy")
    return walk, trial


def _way_in(target: Target) -> Check:
    """Prepare what 'pprofpy heap' does to enter the process, up to the point where a thread would be borrowed."""
    try:
        attach.rehearse(target)
    except PprofpyError as error:
        return Check("its heap", Verdict.FAILED, error.message, error.hint, "heap")
    return Check("its heap", Verdict.OK, "the process can be entered")


def _trial(target: Target) -> Check:
    """Let py-spy read the stacks once, without pausing the process."""
    try:
        refuse_frozen(target)  # py-spy would wait
        done = executable.dump(target.pid, _TRIAL_TIMEOUT_S)
    except PprofpyError as error:
        return Check("a trial", Verdict.FAILED, error.message, error.hint, "cpu")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("a trial", Verdict.FAILED, f"py-spy did not answer: {error}", "try again", "cpu")
    if done.returncode == 0:
        count = len(re.findall(r"^Thread ", done.stdout, re.MULTILINE))
        return Check("a trial", Verdict.OK, f"py-spy read {counted(count, 'stack')}")
    if "Permission" in done.stderr or "not permitted" in done.stderr:
        refusal = targets.permission_error(target.pid, target.user)
        return Check("a trial", Verdict.FAILED, refusal.message, refusal.hint, "cpu")
    reason = next(iter(done.stderr.strip().splitlines()), f"exit status {done.returncode}").removeprefix("Error: ")
    return Check("a trial", Verdict.FAILED, reason, "if it has only just started, try again", "cpu")


def _walk(target: Target) -> Check:
    """Let the kernel walk the stacks of the process for a moment."""
    from pprofpy.collectors.sampling.cpu import CpuRecorder, CpuRecorderOptions

    try:
        with CpuRecorder(CpuRecorderOptions(rate_hz=_WALK_RATE_HZ)) as recorder:
            recorder.watch(target)
            deadline = time.monotonic() + _WALK_S
            while time.monotonic() < deadline:
                time.sleep(_WALK_S / 10)
                recorder.poll()
            count = recorder.finish().profile.total(0)
    except PprofpyError as error:
        return Check("its stacks", Verdict.WARNING, error.message, error.hint, "stacks")
    walked = f"the kernel walked {count}" if count else "the kernel can walk them; none ran Python in the meantime"
    return Check("its stacks", Verdict.OK, walked)


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text().strip()
    return ""
