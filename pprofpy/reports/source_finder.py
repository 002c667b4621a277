"""Find the source files that a profile names, and the lines at which a function begins and ends."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pprofpy.formats import archives
from pprofpy.formats.source_text import Definition, SourceText, decoded, definitions, read_regular, read_source
from pprofpy.model.sources import KeptSource
from pprofpy.system.folders import check_answers, opened_folder
from pprofpy.system.rights import as_user


@dataclass(slots=True)
class Source:
    """A source file that was found.

    Attributes:
        path: Where.
        lines: Its lines without their ends; line n is `lines[n - 1]`.
        mtime_ns: When it was last changed, Unix time.
    """

    path: Path
    lines: list[str]
    mtime_ns: int
    _definitions: list[Definition] | None = field(default=None, repr=False, compare=False)

    def function_around(self, first: int, last: int) -> tuple[int, int] | None:
        """First and last line of the innermost Python function or class that holds lines `first` to `last`."""
        around = [(one.first, one.last) for one in self._defined() if one.first <= first and last <= one.last]
        return min(around, key=lambda span: span[1] - span[0], default=None)

    def lacks(self, name: str, first: int, last: int) -> bool:
        """Is it Python in which no function or class of this name holds these lines? Not told of `<lambda>`."""
        own = name.rpartition(".")[2]
        if not self._is_python() or not own.isidentifier():
            return False
        of_that_name = (one for one in self._defined() if one.qualified_name.rpartition(".")[2] == own)
        return not any(one.first <= first and last <= one.last for one in of_that_name)

    def _defined(self) -> list[Definition]:
        if self._definitions is None:
            self._definitions = definitions(self.lines) if self._is_python() else []
        return self._definitions

    def _is_python(self) -> bool:
        return self.path.suffix in (".py", ".pyw")


class SourceFinder:
    """Finds and reads source files, each once.

    Args:
        folders: Where to look for what is not at the path that the profile gives.
        trimmed: Prefixes to cut off the profile's paths before that.
        users: Who chose the paths: the owners of the profiles' files. If we are root, what they cannot read is not
            read, but for what lies in `folders`.
        kept: What the recording brought along: its process saw other files than those that are here.
    """

    def __init__(
        self,
        folders: Sequence[str] = (),
        trimmed: Sequence[str] = (),
        users: Collection[int] = frozenset(),
        kept: Mapping[str, KeptSource] | None = None,
    ) -> None:
        self._kept = kept
        self._folders = [Path(folder).absolute() for folder in folders]
        self._users = sorted({os.geteuid(), *users})
        self._prefixes = [prefix.rstrip("/") + "/" for prefix in trimmed]
        self._found: dict[str, Source | None] = {}

    def find(self, name: str) -> Source | None:
        """The file that a profile calls `name`, or None.

        A path that does not exist as it is gets shorter from the left until one of the folders has it.
        """
        if name not in self._found:
            self._found[name] = self._look_up(name)
        return self._found[name]

    def _look_up(self, name: str) -> Source | None:
        if self._kept and (source := self._kept.get(name)):
            return Source(Path(name), source.text.split("\n")[:-1], source.mtime_ns)
        prefix = next((prefix for prefix in self._prefixes if name.startswith(prefix)), "")
        trimmed = PurePosixPath(name.removeprefix(prefix))
        is_here = trimmed.is_absolute() and self._kept is None
        if is_here and (found := self._read(Path(trimmed), is_named=False)):
            return found
        parts = [part for part in trimmed.parts if part not in ("/", "..")]
        elsewhere = (folder.joinpath(*parts[start:]) for start in range(len(parts)) for folder in self._folders)
        return next(filter(None, (self._read(path, is_named=True) for path in elsewhere)), None)

    def _read(self, path: Path, *, is_named: bool) -> Source | None:
        """Read a file; None if there is none, or if it is none to be read.

        Args:
            path: Where.
            is_named: The user said that the source is in that folder.
        """
        text: SourceText | None = None
        try:
            check_answers(path, os.geteuid())
        except OSError:
            return None
        with suppress(OSError, ValueError):
            if is_named and os.geteuid() == 0:
                text = _read_within(path)
        if text is None:
            try:
                for user in self._users:  # several profiles: what all of their owners can read
                    with as_user(user):
                        text = _read_as_it_is(path, is_ours=self._users == [os.geteuid()])
            except (OSError, ValueError):
                return self._read_archived(path, is_named=is_named)
        return Source(path, text.lines, text.mtime_ns) if text else None

    def _read_archived(self, path: Path, *, is_named: bool) -> Source | None:
        """Read a member of an archive, such as `app.pyz/shop.py`; None if there is none."""
        if is_named or not (place := archives.split(str(path))):
            return None
        archive, name = place
        try:
            for user in self._users:
                with as_user(user):
                    content, mtime_ns = _read_archive(Path(archive), is_ours=self._users == [os.geteuid()])
            return Source(path, decoded(archives.member(content, name)), mtime_ns)
        except (OSError, ValueError):
            return None


def _read_within(path: Path) -> SourceText:
    """Read a file of a folder that the user named; links of others must not lead out of it."""
    with opened_folder(path.parent) as folder:
        entry = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if stat.S_ISLNK(os.fstat(entry).st_mode):
            raise PermissionError("this is a link")
        return read_source(entry)
    finally:
        os.close(entry)


def _read_as_it_is(path: Path, *, is_ours: bool) -> SourceText:
    entry = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return read_source(entry, is_ours=is_ours)
    finally:
        os.close(entry)


def _read_archive(path: Path, *, is_ours: bool) -> tuple[bytes, int]:
    """An archive's content, and when it was last changed."""
    entry = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return read_regular(entry, archives.LARGEST_ARCHIVE_BYTES, is_ours=is_ours)
    finally:
        os.close(entry)
