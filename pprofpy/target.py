"""Which process to profile, and what it is: pid, name, command, owner, Python, namespaces, threads.

A process is Python if a CPython or PyPy is mapped into it, whatever its name: virtual environments, uWSGI and other
embedders count, a shell script called python.sh does not. Everything is read from /proc, through the target's own
root where its files are meant, so that containers work. Nothing here touches the target.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pwd
import re
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pprofpy.errors import TargetError, TargetPermissionError, UsageError

PROC = Path("/proc")
CAP_SYS_PTRACE = 19

_LIBRARY = re.compile(r"lib(?P<kind>python|pypy)(?P<version>\d+\.\d+)?[\w-]*\.so")
_PROGRAM = re.compile(r"(?P<kind>python|pypy)(?P<version>\d+\.\d+)?\d*t?d?(-dbg)?")
_LOADER = re.compile(r"ld[\w.-]*\.so[\d.]*")
_STANDARD_LIBRARY = re.compile(r"/lib(?:64)?/(?:python|pypy)(\d+\.\d+)t?/")
_INTERPRETER_SYMBOL = b"\0_PyRuntime\0"
_SYMBOL_TABLE = b"\0.symtab\0"
_NUMBER_PARTS = {bytes([char]) for char in b"0123456789."}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python inside a process.

    Attributes:
        implementation: CPython or PyPy.
        version: As exact as can be told without running anything: `3.11.7`, `3.11`, or empty.
        is_shared: In a libpython of its own, as opposed to linked into the program.
        is_stripped: Without a symbol table.
        path: The file that holds it, as the target sees it.
    """

    implementation: str
    version: str
    is_shared: bool
    is_stripped: bool
    path: str

    def __str__(self) -> str:
        build = ("shared" if self.is_shared else "static") + (", stripped" if self.is_stripped else "")
        return f"{self.implementation} {self.version or '(version unknown)'} ({build})"


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as the kernel sees it.

    Attributes:
        tid: In our pid namespace.
        inner_tid: In the target's own; the same unless it runs in a container.
        name: The kernel's name for it, at most 15 bytes; Python's `Thread.name` is another thing.
    """

    tid: int
    inner_tid: int
    name: str


@dataclass(frozen=True, slots=True)
class Target:
    """A Python process.

    Attributes:
        pid: In our pid namespace.
        name: What its users would call it: the script, module or program.
        command: Its command line.
        user: Who runs it.
        interpreter: The Python in it.
        in_other_pid_namespace, in_other_mount_namespace: It sees other pids, other files than we do (a container).
        started_ticks: When it started, in clock ticks since boot: with the pid, its identity.
    """

    pid: int
    name: str
    command: tuple[str, ...]
    user: str
    interpreter: Interpreter
    in_other_pid_namespace: bool
    in_other_mount_namespace: bool
    started_ticks: int

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}, {self.interpreter.implementation} {self.interpreter.version})"

    @property
    def root(self) -> Path:
        """The target's root folder, reachable from here."""
        return PROC / str(self.pid) / "root"

    def threads(self) -> list[Thread]:
        """Its threads right now; empty if it has ended."""
        found = []
        for folder in _numbered(PROC / str(self.pid) / "task"):
            with contextlib.suppress(OSError):
                inner = _status(folder).get("NSpid", folder.name).split()[-1]
                found.append(Thread(int(folder.name), int(inner), _text(folder / "comm").rstrip("\n")))
        return found

    def state(self) -> str:
        """Its state as the kernel abbreviates it (R, S, D, T, ...); empty if it has ended or its pid is another's."""
        try:
            state, started = _state_and_start(PROC / str(self.pid))
        except OSError:
            return ""
        return state if state not in "ZX" and started == self.started_ticks else ""

    def cpu_time_ns(self) -> int:
        """CPU time that all its threads, ended ones too, have used since it started; -1 if it has ended.

        Source: utime and stime in /proc/PID/stat, in clock ticks (10 ms).
        """
        try:
            fields = _text(PROC / str(self.pid) / "stat").rpartition(")")[2].split()
        except OSError:
            return -1
        ticks = int(fields[11]) + int(fields[12])
        return -1 if fields[0] in "ZX" else ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def age_s(self) -> float:
        """How long ago it started, in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started_ticks / os.sysconf("SC_CLK_TCK")

    def is_alive(self) -> bool:
        """Does it still run? A zombie does not."""
        return self.state() != ""


def open_target(pid: int) -> Target:
    """The Python process `pid`.

    Raises:
        TargetError: There is none, it has ended, or it is not Python.
        TargetPermissionError: We may not look inside it.
    """
    folder = PROC / str(pid)
    listing = "list Python processes with 'pgrep -af python'"
    try:
        status = _status(folder)
        state, started = _state_and_start(folder)
    except OSError as error:
        raise TargetError(f"there is no process {pid}", listing) from error
    if (process := int(status["Tgid"])) != pid:
        raise TargetError(f"{pid} is a thread of process {process}", f"profile the process: --pid {process}")
    if state in "ZX":
        raise TargetError(f"process {pid} has ended (a zombie: its parent has not collected it yet)", listing)
    user = _user_name(int(status["Uid"].split()[1]))
    command = _command_line(folder)
    try:
        interpreter = _find_interpreter(folder)
        foreign = [_namespace(folder, kind) != _namespace(PROC / "self", kind) for kind in ("pid", "mnt")]
    except PermissionError as error:
        raise permission_error(pid, user) from error
    except OSError as error:
        raise TargetError(f"process {pid} ended just now", listing) from error
    name = _name(command) or status["Name"]
    if interpreter is None:
        raise TargetError(f"process {pid} ({printable(name)}) is not a Python process", listing)
    return Target(pid, printable(name), command, user, interpreter, foreign[0], foreign[1], started)


def python_processes() -> list[Target]:
    """All Python processes that we may look into, except pprofpy itself and whatever started it."""
    ours = _ancestry()
    found = []
    for folder in _numbered(PROC):
        if int(folder.name) not in ours and not _is_pprofpy(_command_line(folder)):
            with contextlib.suppress(TargetError, TargetPermissionError):
                found.append(open_target(int(folder.name)))
    return found


def descendants_of(pid: int) -> list[int]:
    """The pids of a process's children and of theirs, ascending."""
    family = {pid}
    for folder in _numbered(PROC):  # ascending: parents come before their children, unless pids have wrapped around
        with contextlib.suppress(OSError):
            if int(_status(folder)["PPid"]) in family:
                family.add(int(folder.name))
    return sorted(family - {pid})


def find_by_name(pattern: str) -> Target:
    """The Python process whose command line matches a regular expression (as `pgrep -f` does).

    Raises:
        UsageError: `pattern` is not a regular expression.
        TargetError: None matches, or several do; the hint lists them.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--name {pattern!r} is not a regular expression: {error}", "put a backslash before ( [ . * + ?"
        ) from error
    matching = [target for target in python_processes() if regex.search(" ".join(target.command))]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise several(matching, f"match --name {pattern!r}")
    raise TargetError(
        f"no Python process matches --name {pattern!r}{_unseen()}",
        "the pattern is searched for in the command line; look at yours with 'pgrep -af python'",
    )


def the_only_one(candidates: list[Target]) -> Target:
    """The candidate, if there is exactly one.

    Raises:
        TargetError: There is none, or there are several; the hint lists them.
    """
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise several(candidates, "run here")
    raise TargetError(
        f"no Python process runs here{_unseen()}", "name one with --pid PID, or start one: pprofpy cpu -- COMMAND"
    )


def several(candidates: list[Target], what: str) -> TargetError:
    """The error for a choice that we must not make for the user."""
    shown = "".join(f"\n    --pid {summary(target)}" for target in candidates[:20])
    more = f"\n    and {len(candidates) - 20} more" if len(candidates) > 20 else ""
    return TargetError(f"{len(candidates)} Python processes {what}", f"choose one:{shown}{more}")


def summary(target: Target) -> str:
    """One line to recognize a process by: `1234  alice  CPython 3.11.7  python worker.py --queue mail`."""
    command = printable(shlex.join(target.command))
    shortened = command if len(command) <= 80 else command[:79] + "…"
    interpreter = f"{target.interpreter.implementation} {target.interpreter.version}"
    return f"{target.pid:<7}  {target.user}  {interpreter}  {shortened}"


def permission_error(pid: int, user: str) -> TargetPermissionError:
    """The error for a process that exists but that we may not look into, with what to type instead."""
    if has_capability(CAP_SYS_PTRACE):
        return TargetPermissionError(
            f"the kernel does not let us look into process {pid}: it has privileges that we lack",
            "run pprofpy on the host, outside of this container or sandbox",
        )
    if os.geteuid() == 0:
        return TargetPermissionError(
            f"no permission to look into process {pid}, although we are root",
            "CAP_SYS_PTRACE is missing; start the container with --cap-add SYS_PTRACE (Kubernetes: capabilities.add)",
        )
    if user != _user_name(os.geteuid()):
        return TargetPermissionError(f"process {pid} belongs to {user}", f"run {with_sudo()}")
    return TargetPermissionError(
        f"the kernel does not let us look into process {pid} (ptrace is restricted)", f"run {with_sudo()}"
    )


def has_capability(bit: int) -> bool:
    """Do we have this capability in effect?"""
    return bool(int(_status(PROC / "self")["CapEff"], 16) >> bit & 1)


def with_sudo() -> str:
    """This very command line, to be run as root."""
    program = Path(sys.argv[0])
    ours = [sys.executable, "-m", "pprofpy"] if program.name == "__main__.py" else [str(program.resolve())]
    return printable(shlex.join(["sudo", *ours, *sys.argv[1:]]))


def printable(text: str) -> str:
    """Text that came from a target, made safe for one line of a terminal: control characters become escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


# -- reading /proc -------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _numbered(folder: Path) -> list[Path]:
    """The sub-folders called by a number, ascending."""
    try:
        names = [int(name) for name in os.listdir(folder) if name.isdigit()]  # noqa: PTH208 - names only, and fast
    except OSError:
        return []
    return [folder / str(name) for name in sorted(names)]


def _status(folder: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(folder / "status").splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _state_and_start(folder: Path) -> tuple[str, int]:
    """The state letter and the start time. The name in between may hold anything, `)` and newlines too."""
    after_name = _text(folder / "stat").rpartition(")")[2].split()
    return after_name[0], int(after_name[19])


def _command_line(folder: Path) -> tuple[str, ...]:
    try:
        words = _text(folder / "cmdline").split("\0")
    except OSError:
        return ()
    return tuple(words[:-1] if words[-1] == "" else words)


def _namespace(folder: Path, kind: str) -> str:
    return str((folder / "ns" / kind).readlink())


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _name(command: tuple[str, ...]) -> str:
    """What users call a process: the script or module of an interpreter, else the program."""
    if not command:
        return ""
    command = _without_loader(command)
    program = command[0].rpartition("/")[2]
    if _PROGRAM.fullmatch(program):
        words = iter(command[1:])
        for word in words:
            if word in ("-m", "-X", "-W"):
                value = next(words, "")
                if word == "-m":
                    return value
            elif word == "-c":
                break
            elif not word.startswith("-"):
                return word.rpartition("/")[2].removesuffix(".py")
    return program


def _without_loader(command: tuple[str, ...]) -> tuple[str, ...]:
    """What `ld.so --library-path FOLDER PROGRAM ARGS...` starts. Source: man 8 ld.so."""
    place = 1
    if not _LOADER.fullmatch(command[0].rpartition("/")[2]):
        return command
    while command[place:] and command[place].startswith("--"):
        place += 1 if "=" in command[place] or command[place] == "--inhibit-cache" else 2
    return command[place:] or command


def _ancestry() -> set[int]:
    """Us and all who started us: sudo, the shell, a test runner."""
    found, pid = set(), os.getpid()
    while pid and pid not in found:
        found.add(pid)
        try:
            pid = int(_status(PROC / str(pid))["PPid"])
        except OSError:
            break
    return found


def _is_pprofpy(command: tuple[str, ...]) -> bool:
    """Another pprofpy: its command line holds the name that somebody looks for, but nobody means it."""
    words = command[:3]
    return any(word.rpartition("/")[2] == "pprofpy" for word in words) or words[1:] == ("-m", "pprofpy")


def _unseen() -> str:
    """A remark for those who see only their own processes."""
    return "" if os.geteuid() == 0 else " (processes of other users need sudo)"


# -- recognizing Python --------------------------------------------------------------------------------------------


def _find_interpreter(folder: Path) -> Interpreter | None:
    """The Python mapped into a process, None if there is none.

    Raises:
        PermissionError: We may not read its memory map.
    """
    mapped = _mapped_files(folder)
    if not mapped:
        return None
    program, own_file = str((folder / "exe").readlink()).removesuffix(" (deleted)"), folder / "exe"
    if _LOADER.fullmatch(program.rpartition("/")[2]):  # started as `ld.so PROGRAM`
        program = next((path for path in mapped if _PROGRAM.fullmatch(path.rpartition("/")[2])), program)
        own_file = _open_mapped(folder, program, mapped.get(program, ""))
    libraries = [(path, match) for path in mapped if (match := _LIBRARY.match(path.rpartition("/")[2]))]
    named = _PROGRAM.fullmatch(program.rpartition("/")[2])
    known = {match[1] for path in [program, *mapped] if (match := _STANDARD_LIBRARY.search(path))}
    if libraries:
        path, match = libraries[0]
        file = _open_mapped(folder, path, mapped[path])
    elif named or _holds(own_file, _INTERPRETER_SYMBOL):
        path, match, file = program, named, own_file
    else:
        return None
    kind = match["kind"] if match else "python"
    version = (match["version"] if match else None) or (known.pop() if len(known) == 1 else "")
    exact, is_stripped = _inspect(file, version, _identity(file))
    return Interpreter(
        implementation="PyPy" if kind == "pypy" else "CPython",
        version=version if kind == "pypy" else exact,
        is_shared=bool(libraries),
        is_stripped=is_stripped,
        path=path,
    )


def _mapped_files(folder: Path) -> dict[str, str]:
    """The files mapped into a process -> the first address range of each, as /proc/PID/map_files names it."""
    files: dict[str, str] = {}
    for line in _text(folder / "maps").split("\n"):
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            path = fields[5].removesuffix(" (deleted)").replace("\\012", "\n")
            files.setdefault(path, "-".join(f"{int(part, 16):x}" for part in fields[0].split("-")))
    return files


def _open_mapped(folder: Path, path: str, address_range: str) -> Path:
    """Where a mapped file can be read: through the mapping itself (replaced files too), or by its name."""
    through_mapping = folder / "map_files" / address_range
    try:
        with through_mapping.open("rb"):
            return through_mapping
    except OSError:
        return Path(f"{folder}/root{path}")


def _identity(file: Path) -> tuple[int, ...]:
    """Tells one file's content from another's, whatever path leads to it."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_mtime_ns


_inspected: dict[tuple[tuple[int, ...], str], tuple[str, bool]] = {}
_held: dict[tuple[tuple[int, ...], bytes], bool] = {}


def _inspect(file: Path, version: str, identity: tuple[int, ...]) -> tuple[str, bool]:
    """The exact version of an interpreter's file, and whether it is stripped. Each file is searched only once."""
    key = identity, version
    if key not in _inspected:
        _inspected[key] = _exact_version(file, version), not _holds(file, _SYMBOL_TABLE)
    return _inspected[key]


@contextlib.contextmanager
def _content(file: Path) -> Iterator[mmap.mmap | bytes]:
    """A file's bytes without reading them all; empty if it cannot be opened."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content
    except (OSError, ValueError):
        yield b""


def _holds(file: Path, needle: bytes) -> bool:
    """Is this somewhere in a file? Each is searched only once: a browser has hundreds of megabytes."""
    key = _identity(file), needle
    if key not in _held:
        with _content(file) as content:
            _held[key] = content.rfind(needle) >= 0  # section names are at a file's end
    return _held[key]


def _exact_version(file: Path, version: str) -> str:
    """Refine `3.11` to `3.11.7`: PY_VERSION is a string constant of every CPython.

    Without a version to start from, the answer is only given if the file holds a single candidate.
    """
    prefix = re.escape(version) if version else r"3\.(?:[6-9]|[1-9]\d)"
    constant = re.compile(prefix.encode() + rb"\.\d+(?:[abrc]+\d+)?\+?(?=\0)")
    with _content(file) as content:
        matches = constant.finditer(content)
        found = {match[0] for match in matches if content[match.start() - 1 : match.start()] not in _NUMBER_PARTS}
    return found.pop().decode() if len(found) == 1 else version
