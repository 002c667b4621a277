"""A compiled BPF source: its functions and maps as data, a few kilobytes that can be kept and loaded again."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

INSTRUCTION = struct.Struct("<BBhi")
_LOAD_64_BITS, _FROM_MAP = 0x18, 1


@dataclass(frozen=True, slots=True)
class MapShape:
    """A map as bpf(2) is asked for one: `BPF_MAP_TYPE_*`, sizes in bytes, how many entries, flags."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Bytecode:
    """What a source was compiled to.

    Attributes:
        functions: Instructions by name. Where a map is loaded, its place in `maps` stands for its file descriptor.
        maps: All maps of the source.
    """

    functions: dict[str, bytes]
    maps: tuple[MapShape, ...]

    def to_json(self) -> str:
        """For the cache."""
        functions = {name: base64.b64encode(code).decode() for name, code in self.functions.items()}
        return json.dumps({"made by": "pprofpy", "functions": functions, "maps": [asdict(one) for one in self.maps]})

    @classmethod
    def from_json(cls, text: str) -> Bytecode:
        """The contrary.

        Raises:
            ValueError, KeyError, TypeError: It is something else.
        """
        data: dict[str, Any] = json.loads(text)
        functions = {name: base64.b64decode(code) for name, code in data["functions"].items()}
        return cls(functions, tuple(MapShape(**one) for one in data["maps"]))


def renumber_maps(instructions: bytes, numbers: dict[int, int]) -> bytes:
    """Code with each reference to a map replaced, from its key in `numbers` to the value."""
    code = bytearray(instructions)
    for place in range(0, len(code), INSTRUCTION.size):
        operation, registers, offset, value = INSTRUCTION.unpack_from(code, place)
        if operation == _LOAD_64_BITS and registers >> 4 == _FROM_MAP:
            INSTRUCTION.pack_into(code, place, operation, registers, offset, numbers[value])
    return bytes(code)
