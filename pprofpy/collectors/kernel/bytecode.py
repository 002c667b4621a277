"""A compiled BPF source: its functions and maps as data, a few kilobytes that can be kept and loaded again."""

from __future__ import annotations

import base64
import json
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

INSTRUCTION = struct.Struct("<BBhi")
_VALUE, _VALUE_AT, _32_BITS = struct.Struct("<I"), 4, 0xFFFFFFFF
_LOAD_64_BITS, _FROM_MAP = 0x18, 1
RING_BUFFER = 27
"""BPF_MAP_TYPE_RINGBUF"""


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
        parameters: The names of its parameters, by number.
    """

    functions: dict[str, bytes]
    maps: tuple[MapShape, ...]
    parameters: tuple[str, ...] = ()

    def to_json(self) -> str:
        """For the cache."""
        functions = {name: base64.b64encode(code).decode() for name, code in self.functions.items()}
        maps = [asdict(one) for one in self.maps]
        return json.dumps({"functions": functions, "maps": maps, "parameters": self.parameters})

    @classmethod
    def from_json(cls, text: str) -> Bytecode:
        """The contrary.

        Raises:
            ValueError, KeyError, TypeError: It is something else.
        """
        data: dict[str, Any] = json.loads(text)
        functions = {name: base64.b64decode(code) for name, code in data["functions"].items()}
        return cls(functions, tuple(MapShape(**one) for one in data["maps"]), tuple(data["parameters"]))


def resized(bytecode: Bytecode, sizes: Mapping[str, int]) -> Bytecode:
    """A program with other sizes of its maps.

    Args:
        bytecode: The program.
        sizes: Entries, by the map's name; of ring buffers bytes. 0: as few as there can be.

    Raises:
        KeyError: There is no such map.
    """
    shapes = {one.name: one for one in bytecode.maps}
    for name, entries in sizes.items():
        fewest = mmap.PAGESIZE if shapes[name].kind == RING_BUFFER else 1
        shapes[name] = replace(shapes[name], entries=max(entries, fewest))
    return replace(bytecode, maps=tuple(shapes.values()))


def _placed(code: bytes | bytearray) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """Where each instruction begins, and its operation, registers, offset and value; it may be changed meanwhile."""
    for place in range(0, len(code), INSTRUCTION.size):
        yield place, INSTRUCTION.unpack_from(code, place)


PARAMETER = 0x7070_7070_0000_0000
"""Stands in a program, plus a number, for a value that is put in as it is loaded (see `parameter`)."""


def parameter(place: int) -> str:
    """C, for the value of a parameter: LLVM knows nothing of it, so that it stands in the code as one load of 64 bits.

    Args:
        place: Its number, from 0 on.
    """
    return f'({{ u64 value; asm volatile("%0 = {PARAMETER + place:#x} ll" : "=r"(value)); value; }})'


def values_of(bytecode: Bytecode, values: Mapping[str, int]) -> list[int]:
    """The values of a program's parameters, by number; 0 for those that do not occur in this variant.

    Raises:
        ValueError: One is missing, or there is no such parameter.
    """
    names = bytecode.parameters
    occurring = {names[number] for code in bytecode.functions.values() for _, number in _parameters_in(code)}
    if amiss := (occurring - set(values)) | (set(values) - set(names)):
        raise ValueError(f"parameters that are missing, or none: {', '.join(sorted(amiss))}")
    return [values.get(name, 0) for name in names]


def _parameters_in(code: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Where a parameter is loaded, and its number."""
    for place, (operation, registers, _, low) in _placed(code):
        if operation != _LOAD_64_BITS or registers >> 4 or place + INSTRUCTION.size >= len(code):
            continue
        high = INSTRUCTION.unpack_from(code, place + INSTRUCTION.size)[3]
        number = ((high & _32_BITS) << 32 | (low & _32_BITS)) - PARAMETER
        if 0 <= number <= _32_BITS:
            yield place, number


def put_in_parameters(instructions: bytes, values: Sequence[int]) -> bytes:
    """Code with the value of each parameter in its place.

    Args:
        instructions: Functions whose source has `parameter(place)`.
        values: By place; 64 bits each, negative ones as two's complement.
    """
    code = bytearray(instructions)
    for place, number in _parameters_in(code):
        if number < len(values):
            _VALUE.pack_into(code, place + _VALUE_AT, values[number] & _32_BITS)
            _VALUE.pack_into(code, place + INSTRUCTION.size + _VALUE_AT, values[number] >> 32 & _32_BITS)
    return bytes(code)


_CALL, _KERNEL_FUNCTION = 0x85, 2
_FUNCTION_NUMBERS = 0x7071_0000


def kernel_function(place: int) -> str:
    """C, for the address of a function of the kernel's (see `put_in_kernel_functions`).

    Args:
        place: Which one, from 0 on.
    """
    return f"{_FUNCTION_NUMBERS + place:#x}"


def put_in_kernel_functions(instructions: bytes, numbers: Sequence[int]) -> bytes:
    """Code that calls the running kernel's functions.

    Args:
        instructions: Functions whose source has `kernel_function(place)`.
        numbers: Of the functions, in the kernel's types; by place.
    """
    code = bytearray(instructions)
    for place, (operation, _, offset, value) in _placed(code):
        if operation == _CALL and 0 <= value - _FUNCTION_NUMBERS < len(numbers):
            number = numbers[value - _FUNCTION_NUMBERS]
            INSTRUCTION.pack_into(code, place, _CALL, _KERNEL_FUNCTION << 4, offset, number)
    return bytes(code)


def helpers_in(instructions: bytes) -> set[int]:
    """The numbers of the kernel's helpers that code calls."""
    return {
        number
        for operation, registers, _, number in INSTRUCTION.iter_unpack(instructions)
        if operation == _CALL and not registers >> 4
    }


def renumber_maps(instructions: bytes, numbers: dict[int, int]) -> bytes:
    """Code with each reference to a map replaced, from its key in `numbers` to the value."""
    code = bytearray(instructions)
    for place, (operation, registers, offset, value) in _placed(code):
        if operation == _LOAD_64_BITS and registers >> 4 == _FROM_MAP:
            INSTRUCTION.pack_into(code, place, operation, registers, offset, numbers[value])
    return bytes(code)
