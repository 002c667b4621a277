"""What takes long to find out and stays the same: compiled programs, and where things lie in the kernel's structs.

Compiling takes a second and 160 MB, reading all of the kernel's types a quarter of a second; what comes out are a few
kilobytes. They are kept under the user's cache folder, in a file named by all that they depend on. A file is read only
if nobody else could have written it, since the kernel is going to run what it says.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from pprofpy.errors import OutputError
from pprofpy.formats.files import save

_LATEST_FILES = 64
"""So many files are kept."""


def remembered(kind: str, key: Iterable[str], find_out: Callable[[], str]) -> str:
    """A text that was kept, or else one that is found out, and kept.

    Args:
        kind: What it is: the file's name begins with it.
        key: All that it depends on.
        find_out: Makes it; errors pass through, and nothing is kept then.
    """
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:32]
    path = cache_folder() / f"{kind}-{name}.json"
    with contextlib.suppress(OSError, ValueError):
        return _trusted_text(path)
    found = find_out()
    _keep(path, found)
    return found


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/pprofpy, or ~/.cache/pprofpy of the user that we are (under sudo: of root)."""
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "pprofpy"
    try:
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        home = Path.home()
    return home / ".cache" / "pprofpy"


def _trusted_text(path: Path) -> str:
    """A file's text, if nobody but us and root could have written it.

    Raises:
        OSError: There is no such file.
    """
    for one in (path.parent, path):
        facts = one.lstat()
        if stat.S_ISLNK(facts.st_mode) or facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o022:
            raise PermissionError(f"{one} may have been written by others")
    return path.read_text()


def _keep(path: Path, text: str) -> None:
    """Write a file; where that is impossible, its content is found out again next time."""
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        save(text.encode(), path, force=True)
        files = sorted(path.parent.glob("*.json"), key=lambda one: one.stat().st_mtime_ns)
        for old in files[:-_LATEST_FILES]:
            old.unlink(missing_ok=True)
