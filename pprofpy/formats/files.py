"""Profiles in files: reading them, finding the latest, and keeping a recording whatever it takes."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import BinaryIO, TypeVar

from pprofpy.errors import OutputError, ProfileFormatError
from pprofpy.formats import decode, recording
from pprofpy.formats.output import own_descriptor, stream_of, writing
from pprofpy.formats.spool import SUFFIX as SPOOL_SUFFIX
from pprofpy.formats.spool import create_locked, is_being_written
from pprofpy.model.profile import Profile
from pprofpy.model.recording import Recording
from pprofpy.system.blocking import BlockedError
from pprofpy.system.folders import check_answers, make_own_folder, names_in, opened_folder, own_file, reopen, write_file
from pprofpy.system.rights import as_user, caller, owner

STDIO = "-"
"""As a file name: standard input or standard output."""

LARGEST_INPUT_BYTES = 1 << 30
"""A larger file is no recording of ours; /dev/zero has no end."""

_LAST_RESORTS = (Path("/var/tmp"), Path("/tmp"), Path("/dev/shm"))  # noqa: S108 - a folder of our own is made in them
_MOST_NAMES = 10_000
_STATE = Path(".local/state")
_owners: set[int] = set()
_Content = TypeVar("_Content")


def open_input(path: str) -> BinaryIO:
    """Open a file, a pipe, or standard input (`-`) to be read.

    Raises:
        ProfileFormatError: There is nothing to read, or it is a device.
    """
    try:
        descriptor = 0 if path == STDIO else own_descriptor(path)
        if descriptor is not None:
            return _noted(os.fdopen(os.dup(descriptor), "rb"))
        is_owners = Path(path).parent == profile_folder()
        check_answers(Path(path), owner() if is_owners else os.geteuid())
        with as_user(owner()) if is_owners else nullcontext():
            return _noted(_open_file(path))
    except FileNotFoundError as error:
        raise ProfileFormatError(f"there is no file {path!r}", "'pprofpy cpu --pid PID' records one") from error
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error) from error


def _open_file(path: str) -> BinaryIO:
    entry = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        kind = stat.S_IFMT(os.fstat(entry).st_mode)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if kind not in (stat.S_IFREG, stat.S_IFIFO):
            raise ProfileFormatError(f"cannot read {path!r}: it is neither a file nor a pipe")
        return os.fdopen(reopen(entry, os.O_RDONLY), "rb")
    finally:
        os.close(entry)


def owners_of_input() -> frozenset[int]:
    """The users whose files and pipes this process has opened by `open_input`: they chose every name in them."""
    return frozenset(_owners)


def _noted(stream: BinaryIO) -> BinaryIO:
    _owners.add(os.fstat(stream.fileno()).st_uid)
    return stream


def read_input(path: str) -> bytes:
    """The content of what `open_input` opens.

    Raises:
        ProfileFormatError: It cannot be read, or is larger than LARGEST_INPUT_BYTES.
    """
    with open_input(path) as stream:
        try:
            too_large = os.fstat(stream.fileno()).st_size > LARGEST_INPUT_BYTES
            data = b"" if too_large else stream.read(LARGEST_INPUT_BYTES + 1)
        except OSError as error:
            raise _cannot_read(path, error) from error
    if too_large or len(data) > LARGEST_INPUT_BYTES:
        raise ProfileFormatError(f"{path}: larger than any recording ({LARGEST_INPUT_BYTES >> 20} MB)")
    return data


def read_profile(path: str) -> Profile:
    """Load a profile of any format that we read; `-` is standard input.

    Raises:
        ProfileFormatError: There is no readable, valid profile there.
    """
    return _decoded(path, decode)


def read_recording(path: str) -> Recording:
    """Load a profile with all that its file holds beside it; `-` is standard input.

    Raises:
        ProfileFormatError: There is no readable, valid profile there.
    """
    return _decoded(path, recording.read)


def _decoded(path: str, decode_: Callable[[bytes], _Content]) -> _Content:
    data = read_input(path)
    try:
        return decode_(data)
    except ProfileFormatError as error:
        raise ProfileFormatError(f"{path}: {error.message}", error.hint) from error


def profile_folder() -> Path:
    """Where recordings go unless told otherwise: $PPROFPY_DIR, or pprofpy's place under the user's state folder.

    Under sudo it is in the home of the user who called, where that one's later commands look, whatever the environment
    says: it may be that user's or root's.
    """
    if user := caller():
        return Path(user.pw_dir) / _STATE / "pprofpy"
    if chosen := os.environ.get("PPROFPY_DIR"):
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / _STATE) / "pprofpy"


@contextmanager
def in_profile_folder(*, create: bool = False) -> Iterator[int]:
    """The profile folder, open; while this lasts, this thread has the rights of the user whose recordings are there.

    Under sudo that user can put anything into it, at any moment: links, too, lead only where that one could go.

    Raises:
        OSError: There is no such folder, or it cannot be made.
    """
    check_answers(profile_folder(), owner())
    with as_user(owner()), opened_folder(profile_folder(), create=create) as folder:
        yield folder


def require_folder() -> None:
    """Refuse a profile folder that does not answer. (One that is missing is just empty.)

    Raises:
        ProfileFormatError: It is on a file system whose server is gone.
    """
    try:
        check_answers(profile_folder(), owner())
    except BlockedError as error:
        raise _cannot_read(str(profile_folder()), error) from error


def latest_recording() -> Path:
    """The newest profile in the profile folder: a file of ours, neither a link nor a pipe that somebody put there.

    Raises:
        ProfileFormatError: There is none yet.
    """
    require_folder()
    folder, found = profile_folder(), []
    with suppress(OSError), in_profile_folder() as opened:
        found = [
            (facts.st_mtime_ns, name)
            for name in names_in(opened)
            if name.endswith((".pb.gz", SPOOL_SUFFIX))
            and (facts := own_file(opened, name))
            and not (name.endswith(SPOOL_SUFFIX) and is_being_written(opened, name))
        ]
    if not found:
        raise ProfileFormatError(
            f"nothing has been recorded yet (no profile in {folder})",
            "record one with 'pprofpy cpu --pid PID', or name a file",
        )
    return folder / max(found)[1]


def name_of(kind: str, process: str, pid: int) -> str:
    """As in `cpu-worker-1234-20260131-235959`, whatever the process's name holds; pid 0: the whole system."""
    safe = re.sub(r"[^\w-]+", "_", process)[:60].strip("_") or "python"
    return f"{kind}-{f'{safe}-{pid}' if pid else 'system'}-{time.strftime('%Y%m%d-%H%M%S')}"


def save(data: bytes, path: Path, *, force: bool = False) -> None:
    """Write a whole file or nothing: to a temporary name beside it, flushed, then renamed. Mode 0600.

    Args:
        data: The file's content.
        path: Where to; pipes and terminals (/dev/stdout) are written to directly.
        force: Replace, or write to, what is not ours.

    Raises:
        OutputError: It could not be written; nothing half-written is left.
    """
    with writing(path, force=force) as stream:
        stream.write(data)


def save_recording(data: bytes, name: str) -> Path:
    """Keep a recording, whatever it takes: in the profile folder, or else in a new folder under a temporary one.

    Args:
        data: The file's content.
        name: The file's name; a number is added if it is taken.

    Returns:
        Where it is now.

    Raises:
        OutputError: No place could take it.
    """
    failure: OSError | None = None
    try:
        with in_profile_folder(create=True) as folder:
            return profile_folder() / _write_free(folder, name, data)
    except OSError as error:
        failure = error
    for resort, user in product(_last_resorts(), dict.fromkeys((owner(), os.geteuid()))):  # root has no quota
        with suppress(OSError), as_user(user):
            opened, path = make_own_folder(resort, "pprofpy-")
            try:
                return path / _write_free(opened, name, data)
            except OSError:
                path.rmdir()
                raise
            finally:
                os.close(opened)
    raise OutputError(
        f"the recording could not be saved anywhere (in {profile_folder()}: {failure.strerror or failure})",
        "free some space, or write it to stdout with '-o -'",
    )


@contextmanager
def growing(name: str) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in the profile folder that can be read while it grows, and when its writer was killed.

    Raises:
        OutputError: It cannot be written.
    """
    folder, (stem, suffix) = profile_folder(), name.split(".", 1)
    try:
        with in_profile_folder(create=True) as opened:
            name, file = _first_free(stem, suffix, partial(create_locked, opened))
    except OSError as error:
        hint = "free some space, or write elsewhere with -o FILE"
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}", hint) from error
    with stream_of(file, folder / name) as stream:
        yield stream, folder / name


def _last_resorts() -> tuple[Path, ...]:
    """Root asks no environment: under sudo it is the caller's."""
    chosen = os.environ.get("TMPDIR", "") if os.geteuid() else ""
    return (*([Path(chosen)] if chosen else []), *_LAST_RESORTS)


def _write_free(folder: int, name: str, data: bytes) -> str:
    """Write a file under a name that is not taken; returns that name."""
    stem, suffix = name.split(".", 1)
    return _first_free(stem, suffix, lambda chosen: write_file(folder, chosen, data, replace=False))[0]


def _first_free(stem: str, suffix: str, make: Callable[[str], _Content]) -> tuple[str, _Content]:
    """Make a file under the first of several names that is not taken; returns that, and what `make` does."""
    for number in range(1, _MOST_NAMES):
        chosen = f"{stem}.{suffix}" if number == 1 else f"{stem}-{number}.{suffix}"
        with suppress(FileExistsError):
            return chosen, make(chosen)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _cannot_read(path: str, error: Exception) -> ProfileFormatError:
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return ProfileFormatError(f"cannot read {path!r}: {reason}")
