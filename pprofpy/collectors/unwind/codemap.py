"""Which code lies where in a process.

Files are opened through the mapping itself (/proc/PID/map_files): containers, chroots, and files that were replaced or
deleted make no difference.
"""

from __future__ import annotations

import resource
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass

from pprofpy.budget import Budget
from pprofpy.collectors.cpython.memory import Memory, UnreadableError
from pprofpy.collectors.unwind.image import Image
from pprofpy.elf import NotElfError
from pprofpy.errors import PprofpyError
from pprofpy.target import named_files, procfs
from pprofpy.target.named_files import TargetFile
from pprofpy.target.procfs import MappedArea

_VDSO = "[vdso]"
_MOST_KEPT_BYTES = 128 << 20
"""Of the names and tables of all files. The largest library that we know has 100 MB of them."""

_UNLIMITED = 1 << 62


class Images:
    """Files that are open, each once, whatever the number of processes that have it mapped."""

    def __init__(self) -> None:
        self._images: dict[tuple[int, ...], Image | None] = {}
        self._budget = Budget("native files", steps=_UNLIMITED, size=_MOST_KEPT_BYTES, seconds=float("inf"))
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = descriptors // 2 if descriptors != resource.RLIM_INFINITY else _UNLIMITED

    def open(self, file: TargetFile, path: str) -> Image | None:
        """The image in a file, which is closed unless that needs it; None if there is none."""
        if file.identity in self._images:
            file.close()
        elif len(self._images) < self._most:
            self._images[file.identity] = self._image(path, file)
        else:
            file.close()
        return self._images.get(file.identity)

    def vdso(self, content: bytes) -> Image | None:
        """What the kernel itself maps into every process."""
        if () not in self._images:
            self._images[()] = self._image(_VDSO, content)
        return self._images[()]

    def close(self) -> None:
        """Close all files."""
        for image in self._images.values():
            if image:
                image.close()
        self._images.clear()

    def _image(self, path: str, source: TargetFile | bytes) -> Image | None:
        with suppress(NotElfError):
            return Image(path, source, self._budget)
        return None


@dataclass(slots=True)
class _Code:
    """A mapping that can be executed; its image is opened when it is first needed."""

    mapping: MappedArea
    image: Image | None = None
    bias: int = 0
    is_open: bool = False


class CodeMap:
    """The code of one process.

    Args:
        pid: The process.
        images: Where its files are opened.
    """

    def __init__(self, pid: int, images: Images) -> None:
        self._pid = pid
        self._images = images
        self._code: list[_Code] = []

    def refresh(self) -> bool:
        """Look again; True if there is anything new. What a process had when it ended stays known."""
        try:
            mappings = [mapping for mapping in procfs.mappings(self._pid) if mapping.is_code]
        except OSError:
            return False
        if not mappings or mappings == [code.mapping for code in self._code]:
            return False
        self._code = list(map(_Code, mappings))
        return True

    def find(self, address: int) -> tuple[Image, int] | None:
        """The image whose code lies at an address, and its bias; None if it is no file's, or cannot be read."""
        place = bisect_right(self._code, address, key=lambda code: code.mapping.start) - 1
        if place < 0 or address >= self._code[place].mapping.end:
            return None
        code = self._code[place]
        if not code.is_open:
            self._open(code)
        return (code.image, code.bias) if code.image else None

    def _open(self, code: _Code) -> None:
        code.is_open, mapping = True, code.mapping
        with suppress(NotElfError, OSError, UnreadableError, PprofpyError):
            if mapping.name == _VDSO:
                content = Memory(self._pid).read(mapping.start, mapping.end - mapping.start)
                image = self._images.vdso(content)
            else:
                image = self._images.open(named_files.open_mapped(self._pid, mapping), mapping.path)
            if image:
                code.bias = image.bias(mapping.start, mapping.offset)
                code.image = image
