"""Mutators: from a valid input to one that is nearly valid. Each takes a random generator, so that a seed decides all."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from pprofpy.errors import ProfileFormatError
from pprofpy.formats.protowire import BYTES, VARINT, bytes_field, fields, signed, varint

_LARGEST = 1 << 17
"""Inputs are cut here: each is to be read within a second."""

Mutator = Callable[[Random, bytes], bytes]

NUMBERS = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 4096, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
           2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 8, 2**64 - 4096)  # fmt: skip
WORDS = (b"", b"\0", b"\xff\xfe", b"%s", b"%n", b"{}", b"\x1b[31m", b"\x85", b"\f", b"\r", b"NaN", b"-1", b"1e999", b"1" * 5000, b"\xf0\x9f\x98\x80",
         "\u202e\u2028".encode(), b"a" * 3000, b"(((((((((", b"; ", b" (/", b"0x", b"\n\n", b"\ttrue", b"../../..")  # fmt: skip
TEXTS = (
    "",
    "x",
    "\ud800",
    "\u202e",
    "a" * 3000,
    "\x1b[2J",
    "(a+)+$",
    "__proto__",
    "nanoseconds",
    "seconds",
    "thread",
    "\0",
    "[native]",
    "1e9",
)
JSON: tuple[Any, ...] = (None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, 1e308, -1e308, [], {}, [[]], *TEXTS)  # fmt: skip


def several(*mutators: Mutator) -> Mutator:
    """One to four of these, one after the other."""

    def mutate(random: Random, data: bytes) -> bytes:
        for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
            data = random.choice(mutators)(random, data)[:_LARGEST]
        return data

    return mutate


def raw(random: Random, data: bytes) -> bytes:
    """Change, insert, remove, repeat or cut bytes, without any idea of what they are."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        at, size = random.randrange(len(changed) + 1), random.choice((1, 1, 2, 4, 8, 16, 64))
        match random.randrange(6):
            case 0:
                changed[at : at + size] = random.randbytes(size)
            case 1:
                changed[at:at] = random.choice(WORDS)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size] * _times(random, size, 1, 2, 3, 100)
            case 4 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case _ if random.random() < 0.1:
                del changed[at:]
    return bytes(changed)


def numbers(random: Random, data: bytes) -> bytes:
    """Overwrite aligned numbers of 1, 2, 4 or 8 bytes with ones that are on some border."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        size = random.choice((1, 2, 4, 4, 8, 8))
        if len(changed) >= size:
            at = random.randrange(0, len(changed) - size + 1)
            at -= at % size if random.random() < 0.8 else 0
            changed[at : at + size] = _number(random).to_bytes(16, "little")[:size]
    return bytes(changed)


def protobuf(random: Random, data: bytes) -> bytes:
    """Rearrange the fields of a message, or change one of them; deep inside as well."""
    try:
        parts = [(number, kind, data[value:end] if kind != VARINT else varint(value))
                 for number, kind, value, end in fields(data, 0, len(data))]  # fmt: skip
    except ProfileFormatError:
        return raw(random, data)
    for _ in range(random.choice((1, 1, 2))):
        place = random.randrange(len(parts) + 1)
        match random.randrange(8):
            case 0:
                parts[place : place + random.choice((1, 1, 5))] = []
            case 1:
                parts[place:place] = parts[place : place + 1] * _times(random, len(data), 1, 2, 50, 1000)
            case 2:
                random.shuffle(parts)
            case 3:
                parts.insert(place, (random.choice((*range(1, 17), 1000, 2**28)), VARINT, varint(_number(random))))
            case 4:
                parts.insert(place, (random.randrange(1, 17), BYTES, random.choice(WORDS)))
            case _ if parts:
                place = random.randrange(len(parts))
                number, kind, value = parts[place]
                if kind == VARINT:
                    value = varint(_number(random))
                elif kind == BYTES:
                    value = random.choice((protobuf, protobuf, _packed, raw))(random, value)
                parts[place] = number, kind, value
    return b"".join(
        bytes_field(number, value) if kind == BYTES else varint(number << 3 | kind) + value
        for number, kind, value in parts
    )


def _packed(random: Random, _: bytes) -> bytes:
    return b"".join(varint(random.choice((1, 1, 2, 3, _number(random)))) for _ in range(random.choice((0, 1, 3, 300))))


def document(random: Random, data: bytes) -> bytes:
    """Change a value somewhere in a JSON document, or the text of it."""
    if random.random() < 0.1:
        return raw(random, data)
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        return raw(random, data)
    for _ in range(random.choice((1, 1, 2, 3))):
        parent: Any = root
        while root:
            keys: Sequence[Any] = list(parent) if isinstance(parent, dict) else range(len(parent))
            if not keys:
                break
            key = random.choice(keys)
            if not isinstance(parent[key], dict | list) or not parent[key] or random.random() < 0.15:
                _change(random, parent, key)
                break
            parent = parent[key]
    text = json.dumps(root[0] if root else None)
    if random.random() < 0.05:
        text = text.replace("1", random.choice(("1" * 5000, "1e999", "NaN", "-Infinity", "[" * 3000, "1.5")), 1)
    return text.encode()


def _change(random: Random, parent: Any, key: Any) -> None:
    match random.randrange(6):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, list):
            small = not isinstance(parent[key], dict | list) or len(parent[key]) < 4
            parent[key:key] = [parent[key]] * random.choice((1, 2, 50, 1000) if small else (1, 2))
        case 2:
            parent[key] = [parent[key]]
        case 3 if isinstance(parent, dict):
            parent[random.choice(TEXTS)] = parent[key]
        case _:
            parent[key] = deepcopy(random.choice(JSON))


def lines(random: Random, data: bytes) -> bytes:
    """Repeat, remove, swap or join lines, and change words in them."""
    parts = data.split(b"\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(parts)) if parts else 0
        match random.randrange(6) if parts else 5:
            case 0:
                del parts[at]
            case 1:
                parts[at:at] = [parts[at]] * _times(random, len(parts[at]), 1, 2, 500)
            case 2:
                random.shuffle(parts)
            case 3:
                words = parts[at].split(b" ")
                words[random.randrange(len(words))] = random.choice(WORDS)
                parts[at] = b" ".join(words)
            case 4:
                words = parts[at].split(random.choice((b";", b":", b",", b"\t", b"(", b" ")))
                parts[at] = random.choice((b";", b":", b" (/", b"%", b"((", b"\t")).join(
                    words * _times(random, len(parts[at]), 1, 2, 30)
                )
            case _:
                parts.insert(at, random.choice(WORDS))
    return b"\n".join(parts)


def tokens(random: Random, data: bytes) -> bytes:
    """Change words, numbers and signs of C or of a mangled name."""
    text = data.decode("latin-1")
    found = [part for part in _TOKENS.split(text) if part]
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at = random.randrange(len(found)) if found else 0
        match random.randrange(6) if found else 5:
            case 0:
                del found[at]
            case 1:
                found[at:at] = [found[at]] * _times(random, len(found[at]), 1, 2, 3, 300)
            case 2:
                other = random.randrange(len(found))
                found[at], found[other] = found[other], found[at]
            case 3:
                found[at] = str(signed(_number(random)) if random.random() < 0.3 else _number(random))
            case 4:
                found[at:at] = found[at : at + random.randrange(1, 20)]
            case _:
                found.insert(at, random.choice((*_SIGNS, *(word.decode("latin-1") for word in WORDS))))
    return "".join(found).encode("latin-1")


def packed(layout: str) -> Mutator:
    """Change whole members of records that are packed like this."""
    form = struct.Struct(layout)

    def mutate(random: Random, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(random.choice((1, 1, 2, 5))):
            if len(changed) >= form.size:
                at = random.randrange(len(changed) // form.size) * form.size
                row = bytearray(changed[at : at + form.size])
                match random.randrange(4):
                    case 0:
                        del changed[at : at + form.size]
                    case 1:
                        changed[at:at] = row * _times(random, len(row), 1, 2, 200)
                    case _:
                        changed[at : at + form.size] = numbers(random, bytes(row))
        return bytes(changed)

    return mutate


def _times(random: Random, size: int, *counts: int) -> int:
    """How often to repeat something of a size."""
    return max(1, min(random.choice(counts), _LARGEST // max(size, 1)))


def _number(random: Random) -> int:
    if random.random() < 0.3:
        return random.getrandbits(random.choice((3, 8, 16, 32, 64)))
    return (random.choice(NUMBERS) + random.choice((0, 0, 0, 1, -1))) & (1 << 64) - 1


_TOKENS = re.compile(r"([A-Za-z_]+|[0-9]+|\s+|.)")
_SIGNS = (*"()[]{}<>,;:?!~*&|^%+-=/.\"'\\", "->", "<<", ">>", "&&", "||", "REC->", "__print_flags(", "__print_symbolic(", "%d", "%s", "%*s", "%.999s", "%llx",
          "%pI4", "%ps", "sizeof(", "(u8)", "__get_str(", "0xffffffffffffffffff", "_Z", "N", "E", "S_", "T_", "I", "St", "Li", "1a")  # fmt: skip
