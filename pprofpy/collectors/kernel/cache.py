"""What takes long to find out and stays the same: programs that bcc has compiled.

Compiling takes a second and 160 MB; what comes out are some kilobytes. They are kept under the user's cache folder, in
a file named by all that they depend on. The kernel is going to run what a file says, so one is read only if nobody but
us and root could have written it, exchanged it, or led us to another one: the whole way there is checked on open
descriptors. A damaged entry is found out again.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pprofpy.system.folders import UntrustedError, names_in, opened_folder, write_file

_LATEST_FILES = 256
"""So many files are kept, of some 20 kB each: sources come and go as pprofpy is changed."""

_LARGEST_BYTES = 16 << 20

_Found = TypeVar("_Found")


def remembered(kind: str, key: Iterable[str], find_out: Callable[[], str], parse: Callable[[str], _Found]) -> _Found:
    """What a text says that was kept, or else one that is found out, and kept.

    Args:
        kind: What it is: the file's name begins with it.
        key: All that it depends on.
        find_out: Makes the text; errors pass through, and nothing is kept then.
        parse: Reads the text; a kept one on which it fails counts as damaged.
    """
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:32]
    name = f"{kind}-{digest}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return parse(_kept(name))
    text = find_out()
    with suppress(OSError):  # where it cannot be kept, it is found out again the next time
        _keep(name, text)
    return parse(text)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/pprofpy, or ~/.cache/pprofpy of the user that we are.

    Root takes its home from the password file alone: its environment may be that of the user who called sudo.
    """
    chosen = os.environ.get("XDG_CACHE_HOME", "") if os.geteuid() else ""
    if chosen:
        return Path(chosen).absolute() / "pprofpy"
    try:
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        home = Path.home()
    return home.absolute() / ".cache" / "pprofpy"


def _kept(name: str) -> str:
    """The text of an entry.

    Raises:
        OSError: There is none, or somebody else may have written it.
        ValueError: It is damaged, or was kept for something else.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with opened_folder(cache_folder(), private=True) as folder:
        descriptor = os.open(name, flags, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        is_ours = stat.S_ISREG(facts.st_mode) and facts.st_uid in (0, os.geteuid()) and facts.st_nlink == 1
        if not is_ours or facts.st_mode & 0o022 or facts.st_size > _LARGEST_BYTES:
            raise UntrustedError(f"{name} may have been written by others")
        content = stream.read(_LARGEST_BYTES)
    return unsealed(name, content)


def sealed(name: str, text: str) -> bytes:
    """A file's content for a text. By its first line, damage is noticed, and a file under another's name."""
    digest = hashlib.sha256(name.encode() + b"\0" + text.encode()).hexdigest()
    return f"pprofpy {digest}\n{text}".encode()


def unsealed(name: str, content: bytes) -> str:
    """The text in a file that `sealed` made.

    Raises:
        ValueError: It is damaged, or another file's.
    """
    text = content.partition(b"\n")[2].decode()
    if content != sealed(name, text):
        raise ValueError(f"{name} is damaged")
    return text


def _keep(name: str, text: str) -> None:
    """Write an entry, and forget the oldest ones."""
    with opened_folder(cache_folder(), private=True, create=True) as folder:
        write_file(folder, name, sealed(name, text))
        ages = {one: os.stat(one, dir_fd=folder, follow_symlinks=False).st_mtime_ns for one in names_in(folder)}
        for old in sorted(ages, key=lambda one: ages[one])[:-_LATEST_FILES]:
            os.unlink(old, dir_fd=folder)
