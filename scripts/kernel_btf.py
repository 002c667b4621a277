"""The type information (BTF) of a kernel that does not run: taken out of its compressed image.

    python kernel_btf.py VMLINUZ OUTPUT

Source: Documentation/arch/x86/boot.rst (a bzImage holds the kernel as a compressed ELF file; its section .BTF is taken)
and Documentation/arch/arm64/booting.rst (an Image is the kernel as it lies in memory).
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

_BTF_HEAD = b"\x9f\xeb\x01\x00\x18\x00\x00\x00"
"""Magic number, version 1, no flags, and the length of this header."""
_LEAST_BYTES = 1 << 20
"""All types of a kernel are some megabytes: what is smaller is part of something else."""


def _by_tool(name: str) -> Callable[[bytes], bytes]:
    """The tool complains about what follows the kernel in the file, after it has written all of it."""
    return lambda data: subprocess.run([name, "-dcq"], input=data, capture_output=True, check=False).stdout


_COMPRESSIONS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\xfd7zXZ\0": lambda data: lzma.LZMADecompressor().decompress(data),
    b"\x1f\x8b\x08": lambda data: zlib.decompressobj(31).decompress(data),
    b"\x28\xb5\x2f\xfd": _by_tool("zstd"),
    b"\x02\x21\x4c\x18": _by_tool("lz4"),
}


def _places(data: bytes, magic: bytes) -> Iterator[int]:
    at = data.find(magic)
    while at >= 0:
        yield at
        at = data.find(magic, at + 1)


def _unpacked(image: bytes) -> Iterator[bytes]:
    """The file itself, as arm64's are mostly, and all that in it unpacks; its own code holds the magic numbers, too."""
    yield image
    for magic, unpack in _COMPRESSIONS.items():
        for at in _places(image, magic):
            try:
                yield unpack(image[at:])
            except (lzma.LZMAError, zlib.error):
                continue


def _types_in(kernel: bytes) -> bytes:
    """The largest BTF that is whole; empty if there is none."""
    found = [b""]
    for at in _places(kernel, _BTF_HEAD):
        header_bytes, types_at, types_bytes, strings_at, strings_bytes = struct.unpack_from("<5I", kernel, at + 4)
        size = header_bytes + max(types_at + types_bytes, strings_at + strings_bytes)
        if at + size <= len(kernel):
            found.append(kernel[at : at + size])
    return max(found, key=len)


def main(image: str, output: str) -> None:
    """Write an image's types to a file."""
    for kernel in _unpacked(Path(image).read_bytes()):
        if len(types := _types_in(kernel)) > _LEAST_BYTES:
            Path(output).write_bytes(types)
            return
    sys.exit(f"{image} holds no type information")


if __name__ == "__main__":
    main(*sys.argv[1:])
