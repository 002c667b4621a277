"""Reading and writing files without surprises: atomic, private, never over somebody else's work, never half a file."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from pathlib import Path

from pprofpy.errors import OutputError, PprofpyError, ProfileFormatError
from pprofpy.formats import decode
from pprofpy.profile import Profile

STDIO = "-"
"""As a file name: standard input or standard output."""

_SIGNATURE = b"pprofpy"
_SIGNATURE_WITHIN_BYTES = 1024


def read_profile(path: str) -> Profile:
    """Load a profile of any format that we read; `-` is standard input.

    Raises:
        ProfileFormatError: There is no readable, valid profile there.
    """
    try:
        data = sys.stdin.buffer.read() if path == STDIO else Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ProfileFormatError(f"there is no file {path!r}", "'pprofpy cpu --pid PID' records one") from error
    except (OSError, ValueError) as error:
        raise ProfileFormatError(f"cannot read {path!r}: {_reason(error)}") from error
    try:
        return decode(data)
    except ProfileFormatError as error:
        raise ProfileFormatError(f"{path}: {error.message}", error.hint) from error


def profile_folder() -> Path:
    """Where recordings go unless told otherwise: $PPROFPY_DIR, or pprofpy's place under the user's state folder."""
    if chosen := os.environ.get("PPROFPY_DIR"):
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "pprofpy"


def latest_recording() -> Path:
    """The newest profile in the profile folder.

    Raises:
        ProfileFormatError: There is none yet.
    """
    folder = profile_folder()
    recordings: dict[Path, int] = {}
    for path in folder.glob("*.pb.gz"):
        with contextlib.suppress(OSError):
            recordings[path] = path.stat().st_mtime_ns
    if not recordings:
        raise ProfileFormatError(
            f"nothing has been recorded yet (no profile in {folder})",
            "record one with 'pprofpy cpu --pid PID', or name a file",
        )
    return max(recordings, key=lambda path: (recordings[path], path.name))


def save(data: bytes, path: Path, *, force: bool = False) -> None:
    """Write a whole file or nothing: to a temporary name beside it, flushed, then renamed. Mode 0600.

    Args:
        data: The file's content.
        path: Where to; anything but a plain file (a pipe, /dev/stdout) is written to directly.
        force: Replace a file that pprofpy did not write.

    Raises:
        OutputError: It could not be written; nothing half-written is left.
    """
    try:
        check_free(path, force=force)
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(data, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}", _remedy(error, path)) from error


def check_free(path: Path, *, force: bool = False) -> None:
    """Would `save` write here? To be asked before a long recording, not after.

    Raises:
        OutputError: The folder does not exist, or the name is taken by a folder or by a file that is not ours.
    """
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder", f"name a file in it: -o {path}/profile.pb.gz")
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
        if not force and path.is_file() and not _is_ours(path):
            raise OutputError(
                f"{path} exists, and nothing in it says that pprofpy wrote it", "choose another name, or give --force"
            )
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}", _remedy(error, path)) from error


def save_recording(data: bytes, name: str) -> Path:
    """Keep a recording, whatever it takes: in the profile folder, or else in a temporary folder or in memory.

    Args:
        data: The file's content.
        name: The file's name; a number is added if it is taken.

    Returns:
        Where it is now.

    Raises:
        OutputError: No place could take it.
    """
    folders = [profile_folder(), Path(tempfile.gettempdir()), Path("/dev/shm")]  # noqa: S108 - a last resort, 0600
    failure: PprofpyError | None = None
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = _free_name(folder, name)
            save(data, path)
        except (OSError, OutputError) as error:
            failure = failure or (error if isinstance(error, OutputError) else OutputError(_reason(error)))
            continue
        return path
    raise OutputError(
        f"the recording could not be saved anywhere ({failure})",
        "free some space, or write it to stdout with '-o -'",
    )


def _replace(data: bytes, path: Path) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".pprofpy-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _is_ours(path: Path) -> bool:
    """Did pprofpy write this file? All that it writes says so near its beginning; an empty file may be replaced."""
    with path.open("rb") as stream:
        head = stream.read(_SIGNATURE_WITHIN_BYTES)
    return not head or _SIGNATURE in head


def _free_name(folder: Path, name: str) -> Path:
    stem, dot, suffix = name.partition(".")
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}{dot}{suffix}"
    return path


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _remedy(error: OSError, path: Path) -> str:
    if error.errno == errno.ENOENT:
        return f"the folder {path.parent} does not exist: mkdir -p {path.parent}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or write elsewhere with -o"
    return "write elsewhere with -o FILE, or to standard output with -o -"
