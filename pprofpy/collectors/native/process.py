"""Which code lies where in a process.

Files are opened through the mapping itself (/proc/PID/map_files): containers, chroots, and files that were replaced or
deleted make no difference.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pprofpy.collectors.cpython.elf import NotElfError
from pprofpy.collectors.cpython.memory import Memory, UnreadableError
from pprofpy.collectors.native.image import Image
from pprofpy.errors import PprofpyError

_CODE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) \S+ \d+ *(.*)$", re.MULTILINE)
_DELETED = " (deleted)"
_VDSO = "[vdso]"


class Images:
    """Files that are open, each once, whatever the number of processes that have it mapped."""

    def __init__(self) -> None:
        self._images: dict[tuple[int, ...], Image | None] = {}

    def open(self, path: str, places: list[Path]) -> Image | None:
        """The file that the first of these places leads to; None if there is none that can be read."""
        for place in places:
            with suppress(OSError):
                status = place.stat()
                key = status.st_dev, status.st_ino, status.st_mtime_ns
                if key not in self._images:
                    self._images[key] = _image(path, place)
                return self._images[key]
        return None

    def vdso(self, content: bytes) -> Image | None:
        """What the kernel itself maps into every process."""
        if () not in self._images:
            self._images[()] = _image(_VDSO, content)
        return self._images[()]

    def close(self) -> None:
        """Close all files."""
        for image in self._images.values():
            if image:
                image.close()
        self._images.clear()


def _image(path: str, source: Path | bytes) -> Image | None:
    with suppress(NotElfError):
        return Image(path, source)
    return None


@dataclass(slots=True)
class _Code:
    """A mapping that can be executed; its image is opened when it is first needed."""

    start: int
    end: int
    offset: int
    path: str
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
        self._seen: list[tuple[bytes, ...]] = []
        self._code: list[_Code] = []

    def refresh(self) -> bool:
        """Look again; True if there is anything new. What a process had when it ended stays known."""
        try:
            lines = _CODE.findall(Path(f"/proc/{self._pid}/maps").read_bytes())
        except OSError:
            return False
        if not lines or lines == self._seen:
            return False
        self._seen = lines
        self._code = [
            _Code(int(start, 16), int(end, 16), int(offset, 16), os.fsdecode(path))
            for start, end, offset, path in lines
        ]
        return True

    def find(self, address: int) -> tuple[Image, int] | None:
        """The image whose code lies at an address, and its bias; None if it is no file's, or cannot be read."""
        place = bisect_right(self._code, address, key=lambda code: code.start) - 1
        if place < 0 or address >= self._code[place].end:
            return None
        code = self._code[place]
        if not code.is_open:
            self._open(code)
        return (code.image, code.bias) if code.image else None

    def _open(self, code: _Code) -> None:
        code.is_open = True
        with suppress(NotElfError, OSError, UnreadableError, PprofpyError):
            if code.path == _VDSO:
                content = Memory(self._pid).read(code.start, code.end - code.start)
                image = self._images.vdso(content)
            else:
                image = self._images.open(code.path.removesuffix(_DELETED), self._places(code))
            if image:
                code.bias = image.bias(code.start, code.offset)
                code.image = image

    def _places(self, code: _Code) -> list[Path]:
        folder = Path(f"/proc/{self._pid}")
        places = [folder / "map_files" / f"{code.start:x}-{code.end:x}"]
        if code.path.startswith("/") and not code.path.endswith(_DELETED):
            places.append(Path(f"{folder}/root{code.path}"))
        return places
