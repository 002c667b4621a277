"""Dictionaries, attributes of instances, and modules, read from outside while the program may be changing them.

Source: Include/cpython/dictobject.h, Include/internal/pycore_dict.h, pycore_object.h; what differs between
versions is in versions.py.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.versions import Attributes, Objects

_DICT_KEYS, _DICT_VALUES = 16, 24
_MODULE_DICT = 0
_TYPE_NAME, _TYPE_BASIC_SIZE, _TYPE_FLAGS, _TYPE_DICT_OFFSET = 8, 16, 152, 272
_INT_SIZE = 0
"""Behind the head of an object, which is larger in builds without a GIL."""

INT_FLAG, STR_FLAG = 1 << 24, 1 << 28
"""In `type_flags`: it is an int, or a str, or of a subclass."""

_FLAG_INLINE_VALUES, _FLAG_MANAGED_DICT = 1 << 2, 1 << 4

_MOST_ENTRIES = 100_000
_LONGEST_TYPE_NAME = 128
_INT = struct.Struct("<QIIII")
_INT_DIGIT_BITS, _INT_SIGN, _INT_NEGATIVE = 30, 3, 2
INT_BYTES = _INT.size


def modules_of(runtime: Runtime, dicts: Dicts, interp: int) -> dict[str, int]:
    """`sys.modules` of an interpreter: name -> address of the module."""
    return dicts.by_name(dicts.memory.word(interp + runtime.layout.interp_modules))


def module_dict(dicts: Dicts, module: int) -> dict[str, int]:
    """What a module defines: name -> address of the value."""
    return dicts.by_name(dicts.memory.word(module + dicts.head + _MODULE_DICT))


def int_of(raw: bytes, forms: Objects) -> int:
    """The value of an int.

    Args:
        raw: Its size and its first four digits, INT_BYTES.
        forms: Of its version. From 3.12 on two bits of the size are the sign, before the size has it.

    Raises:
        UnreadableError: It has more digits.
    """
    size, *digits = map(int, _INT.unpack_from(raw))
    if forms.int_flag_bits:
        count, is_negative = size >> forms.int_flag_bits, size & _INT_SIGN == _INT_NEGATIVE
    else:
        signed = size - (size >> 63 << 64)
        count, is_negative = abs(signed), signed < 0
    if count > len(digits):
        raise UnreadableError("an int that is too large")
    value = sum(digit << _INT_DIGIT_BITS * place for place, digit in enumerate(digits[:count]))
    return -value if is_negative else value


class Dicts:
    """Reads dictionaries and instances of one version.

    All methods raise UnreadableError where memory holds something else.

    Attributes:
        head: How many bytes the head of an object has.
    """

    def __init__(self, reader: ObjectReader, forms: Objects) -> None:
        self._reader = reader
        self.memory = reader.memory
        self._forms = forms
        self.head = reader.layout.object_length
        self._strings: dict[int, str] = {}

    @classmethod
    def of(cls, runtime: Runtime, reader: ObjectReader) -> Dicts:
        """Those of an interpreter."""
        return cls(reader, runtime.known.objects)

    def type_flags(self, address: int) -> int:
        """The flags of an object's type (Py_TPFLAGS_*)."""
        return self.memory.word(self._type(address) + self.head + _TYPE_FLAGS)

    def type_name(self, address: int) -> str:
        """The name of an object's type, without its module."""
        name = self.memory.word(self._type(address) + self.head + _TYPE_NAME)
        text = b""
        while b"\0" not in text and len(text) < _LONGEST_TYPE_NAME:
            text += self.memory.read(name + len(text), 8)  # it may lie at the end of what is mapped
        return text.partition(b"\0")[0].decode("latin-1").rpartition(".")[2]

    def _type(self, address: int) -> int:
        return self.memory.word(address + self._reader.layout.object_type)

    def by_name(self, address: int) -> dict[str, int]:
        """A dict with str keys: key -> address of the value. Other keys are left out."""
        found = {}
        for key, value in self.entries(address):
            with suppress(UnreadableError):
                found[self._string(key)] = value
        return found

    def _string(self, address: int) -> str:
        """A key. The names of attributes are the same objects in all instances: they are read once."""
        found = self._strings.get(address)
        if found is None:
            found = self._strings[address] = self._reader.string(address)
        return found

    def entries(self, address: int) -> list[tuple[int, int]]:
        """The addresses of a dict's keys and values, in order of insertion."""
        keys = self.memory.word(address + self.head + _DICT_KEYS)
        values = self.memory.word(address + self.head + _DICT_VALUES)
        if values:
            return self._with_values(keys, values + self._forms.values_head)
        return [(key, value) for key, value in self._slots(keys) if key and value]

    def attributes(self, instance: int) -> dict[str, int]:
        """An instance's own attributes: name -> address of the value."""
        kind = self._type(instance)
        flags = self.memory.word(kind + self.head + _TYPE_FLAGS)
        if self._forms.attributes is Attributes.IN_DICT or not flags & _FLAG_MANAGED_DICT:
            offset = self.memory.word(kind + self.head + _TYPE_DICT_OFFSET)
            return self.by_name(self.memory.word(instance + offset))
        values = self._inline_values(instance, kind, flags)
        if not values:
            return self.by_name(self.memory.word(instance - self._forms.dict_before))
        keys = self.memory.word(kind + self._forms.cached_keys)
        return {self._string(key): value for key, value in self._with_values(keys, values)}

    def integer(self, address: int) -> int:
        """An int of up to 120 bits."""
        return int_of(self.memory.read(address + self.head + _INT_SIZE, INT_BYTES), self._forms)

    def _inline_values(self, instance: int, kind: int, flags: int) -> int:
        """Where the attributes lie if not in a dict of their own; 0 if they do."""
        if self._forms.attributes is Attributes.POINTED_TO:
            return self.memory.word(instance - 32)
        if self._forms.attributes is Attributes.TAGGED:
            tagged = self.memory.word(instance - self._forms.dict_before)
            return tagged + 1 if tagged & 1 else 0
        values = instance + self.memory.word(kind + self.head + _TYPE_BASIC_SIZE)
        if not flags & _FLAG_INLINE_VALUES or not self.memory.read(values, 4)[3]:
            return 0
        return values + 8

    def _with_values(self, keys: int, values: int) -> list[tuple[int, int]]:
        slots = self._slots(keys)
        pointers = struct.unpack(f"<{len(slots)}Q", self.memory.read(values, 8 * len(slots)))
        return [(key, value) for (key, _), value in zip(slots, pointers, strict=True) if key and value]

    def _slots(self, keys: int) -> list[tuple[int, int]]:
        """All (key, value) places of a table that are in use or were."""
        if self._forms.has_compact_keys:
            head = self.memory.read(keys, 32)
            index_bytes, is_general, count = 1 << head[9], head[10] == 0, struct.unpack_from("<Q", head, 24)[0]
            start, width = keys + 32 + index_bytes, 24 if is_general else 16
        else:
            _, size, _, _, count = struct.unpack("<5Q", self.memory.read(keys, 40))
            index_width = 1 if size <= 0xFF else 2 if size <= 0xFFFF else 4 if size <= 0xFFFFFFFF else 8
            start, width = keys + 40 + size * index_width, 24
        if count > _MOST_ENTRIES:
            raise UnreadableError(f"no dict at {keys:#x}")
        raw = self.memory.read(start, count * width)
        return [struct.unpack_from("<QQ", raw, place + width - 16) for place in range(0, count * width, width)]
