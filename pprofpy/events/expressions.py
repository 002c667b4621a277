"""The C expressions of a `print fmt`, as nodes that are evaluated for many records at a time.

Numbers are evaluated as 64-bit integers in columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pprofpy.events.tracepoint import Columns, Field, Ints

Numbers = Ints | int
Value = Numbers | list[str] | list[bytes]
Evaluate = Callable[[Columns], Value]

U64_MASK = (1 << 64) - 1

LONGEST_LINE = 4096
"""So many characters of a line are printed at most: descriptions come from files, too."""


class UnsupportedError(ValueError):
    """C that we do not understand: a record is then shown field by field."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A part of an expression.

    Attributes:
        kind: What it yields: a column of numbers (or one for all), of texts, or of raw bytes.
        evaluate: Computes it.
        is_unsigned: 64 bits without a sign: matters to `>>`, `/`, `<`.
        field: The field that this is, if it is nothing but a field.
    """

    kind: Literal["number", "text", "bytes"]
    evaluate: Evaluate
    is_unsigned: bool = False
    field: Field | None = None


_NARROW = {"8": 8, "16": 16, "32": 32}


def _wrap(value: int) -> int:
    """As a signed 64-bit number."""
    value &= U64_MASK
    return value - (1 << 64) if value >> 63 else value


NO_RECORDS = Columns(np.zeros((0, 8), np.uint8))


def constant(value: int) -> Expression:
    """A number as it is written."""
    wrapped = _wrap(value)
    return Expression("number", lambda _: wrapped, is_unsigned=value >> 63 != 0)


_NULL_TEXT = Expression("text", lambda columns: ["(null)"] * len(columns))
UNKNOWN = Expression("text", lambda columns: ["?"] * len(columns))
"""In the place of an argument that only the kernel can compute."""


def of_field(field: Field) -> Expression:
    """A field: a column of numbers, texts or raw bytes."""
    if field.is_text:
        return Expression("text", lambda columns: columns.texts(field), field=field)
    if field.is_number:
        return Expression(
            "number", lambda columns: columns.numbers(field), not field.is_signed and field.size == 8, field=field
        )
    return Expression("bytes", lambda columns: columns.contents(field), field=field)


def number_of(node: Expression) -> Expression:
    """The node itself, which must be a number.

    Raises:
        UnsupportedError: It is none.
    """
    if node.kind != "number":
        raise UnsupportedError("a number was expected")
    return node


def values_of(node: Expression, columns: Columns) -> Numbers:
    """What a node yields, which must be numbers.

    Raises:
        UnsupportedError: It yields no numbers.
    """
    value = node.evaluate(columns)
    if isinstance(value, list):
        raise UnsupportedError("a number was expected")
    return value


def computed(function: Callable[[Ints], Ints], operand: Expression) -> Expression:
    """A function of a number, value by value."""

    def evaluate(columns: Columns) -> Value:
        return _plain(function(np.asarray(values_of(operand, columns), np.int64)))

    return Expression("number", evaluate, operand.is_unsigned)


def _plain(result: Ints) -> Numbers:
    """A column stays one; a single number becomes Python's."""
    return int(result) if np.ndim(result) == 0 else np.asarray(result).astype(np.int64)


UNARY: dict[str, Callable[[Ints], Ints]] = {
    "-": lambda one: -one,
    "~": lambda one: ~one,
    "!": lambda one: np.asarray(one == 0).astype(np.int64),
    "+": lambda one: one,
}


def applied(operator: str, left: Expression, right: Expression) -> Expression:
    """A binary operator of C, with its rules for signs."""
    left, right = number_of(left), number_of(right)
    is_unsigned = left.is_unsigned if operator in ("<<", ">>") else left.is_unsigned or right.is_unsigned

    def evaluate(columns: Columns) -> Value:
        one, other = (np.asarray(values_of(node, columns), np.int64) for node in (left, right))
        if is_unsigned and operator in _DIFFERS_UNSIGNED:
            one, other = one.view(np.uint64), other.view(np.uint64)
        with np.errstate(all="ignore"):
            return _plain(np.asarray(_OPERATORS[operator](one, other)))

    return Expression("number", evaluate, is_unsigned and operator not in _TRUTH)


_TRUTH = frozenset({"||", "&&", "==", "!=", "<", ">", "<=", ">="})
_DIFFERS_UNSIGNED = frozenset({">>", "/", "%", "<", ">", "<=", ">="})
_OPERATORS: dict[str, Callable[..., Ints]] = {
    "||": lambda a, b: (a != 0) | (b != 0),
    "&&": lambda a, b: (a != 0) & (b != 0),
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
    "&": np.bitwise_and,
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "<<": np.left_shift,
    ">>": np.right_shift,
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    # C rounds towards zero, NumPy downwards.
    "/": lambda a, b: np.where(b == 0, 0, (a - np.fmod(a, b)) // np.where(b == 0, 1, b)),
    "%": np.fmod,
}


def narrowed(node: Expression, type_name: str) -> Expression:
    """A cast: only one to fewer bits changes a number."""
    if node.kind != "number" or type_name.endswith("*"):
        return node
    words = type_name.split()
    bits = next((_NARROW[match[1]] for match in [re.search(r"[us](?:int)?(8|16|32)(?:_t)?$", words[-1])] if match), 0)
    if words[-1] in ("int", "unsigned", "signed") and "long" not in words and "short" not in words:
        bits = 32
    bits = 8 if words[-1] == "char" else 16 if "short" in words else bits
    unsigned = words[0] == "unsigned" or "u" in words[-1][:3]
    if not bits:
        return Expression("number", node.evaluate, unsigned, node.field)
    kind = np.dtype(f"{'u' if unsigned else 'i'}{bits // 8}")
    return computed(lambda one: one.astype(kind).astype(np.int64), node)


def choice(condition: Expression, yes: Expression, no: Expression) -> Expression:
    """`condition ? yes : no`, record by record.

    Raises:
        UnsupportedError: Its branches are of two kinds.
    """
    condition = number_of(condition)
    if {yes.kind, no.kind} == {"text", "number"}:
        yes, no = (_NULL_TEXT if node.kind == "number" else node for node in (yes, no))
    if yes.kind != no.kind:
        raise UnsupportedError("two kinds in a choice")

    def evaluate(columns: Columns) -> Value:
        chosen = np.broadcast_to(np.asarray(values_of(condition, columns)) != 0, len(columns))
        first, second = yes.evaluate(columns), no.evaluate(columns)
        if isinstance(first, list) and isinstance(second, list):
            return [a if is_first else b for is_first, a, b in zip(chosen.tolist(), first, second, strict=True)]  # type: ignore[return-value]
        return np.where(chosen, np.asarray(first, np.int64), np.asarray(second, np.int64))

    return Expression(yes.kind, evaluate, yes.is_unsigned or no.is_unsigned)


def computed_length(node: Expression) -> Expression:
    """How many bytes a field of variable length has.

    Raises:
        UnsupportedError: It is a field of fixed length, or none.
    """
    if node.field is None or not node.field.location:
        raise UnsupportedError("the length of something fixed")
    place = Field(node.field.name, "", node.field.offset, 4, False)
    return Expression("number", lambda columns: columns.numbers(place) >> 16)


def element_of(node: Expression, index: Expression) -> Expression:
    """`array[index]` of a fixed array of bytes or words.

    Raises:
        UnsupportedError: It is no array of numbers, or the index is computed.
    """
    field = node.field
    if field is None or not field.is_array:
        raise UnsupportedError("an element of something else")
    width = element_size(field)

    def evaluate(columns: Columns) -> Value:
        place = values_of(index, columns)
        if not isinstance(place, int) or not 0 <= place < field.size // width:
            raise UnsupportedError("a computed index")
        return columns.numbers(Field(field.name, field.type, field.offset + place * width, width, field.is_signed))

    _ = evaluate(Columns(np.zeros((0, field.offset + field.size), np.uint8)))
    return Expression("number", evaluate, width == 8 and not field.is_signed)


def element_size(field: Field) -> int:
    """The bytes of one element of an array, by the type's name."""
    match = re.search(r"(8|16|32|64)(?:_t)?$", field.type)
    if match:
        return int(match[1]) // 8
    return {"char": 1, "unsigned char": 1, "int": 4, "unsigned int": 4, "long": 8, "unsigned long": 8}.get(
        field.type, field.size
    )


def _named(node: Expression, name_of: Callable[[int], str]) -> Expression:
    """A text for each number; each different number is put into words only once."""

    def evaluate(columns: Columns) -> Value:
        numbers = np.broadcast_to(values_of(node, columns), len(columns))
        different, place = np.unique(numbers, return_inverse=True)
        words = [name_of(value) for value in different.tolist()]
        return [words[index] for index in place.tolist()]

    return Expression("text", evaluate)


def flags_of(value: Expression, delimiter: str, table: dict[int, str] | None) -> Expression:
    """`__print_flags`: the names of the bits that are set."""
    known = table

    def name_of(number: int) -> str:
        if known is None:
            return f"{number & U64_MASK:#x}"
        rest, names = number, []
        for mask, name in known.items():
            if mask and rest & mask == mask:
                names.append(name)
                rest &= ~mask
        if rest:
            names.append(f"{rest & U64_MASK:#x}")
        return delimiter.join(names)[:LONGEST_LINE]

    return _named(value, name_of)


def symbol_of(value: Expression, table: dict[int, str] | None) -> Expression:
    """`__print_symbolic`: the name of a number."""
    known = table or {}
    return _named(value, lambda number: known.get(number, f"{number & U64_MASK:#x}"))


def hex_of(name: str, arguments: list[Expression]) -> Expression:
    """`__print_hex(buffer, length)` and its like.

    Raises:
        UnsupportedError: The arguments are not those of this helper.
    """
    buffer, length = arguments[0], number_of(arguments[1])
    if buffer.kind == "number":
        raise UnsupportedError("hex of a pointer")
    size = arguments[2].evaluate(NO_RECORDS) if name == "__print_array" and len(arguments) > 2 else 1
    if not isinstance(size, int) or size not in (1, 2, 4, 8):
        raise UnsupportedError("elements of unknown size")

    def show(content: bytes) -> str:
        if name == "__print_array":
            numbers = [content[at : at + size][::-1].hex() for at in range(0, len(content), size)]
            return "{" + ",".join(f"0x{number.lstrip('0') or '0'}" for number in numbers) + "}"
        return content.hex() if name == "__print_hex_str" else content.hex(" ")

    def evaluate(columns: Columns) -> Value:
        contents = contents_of(buffer, columns)
        lengths = np.broadcast_to(np.asarray(values_of(length, columns)), len(columns)).tolist()
        return [show(content[: max(count, 0) * size]) for content, count in zip(contents, lengths, strict=True)]

    return Expression("text", evaluate)


def contents_of(node: Expression, columns: Columns) -> list[bytes]:
    """The raw bytes of a field.

    Raises:
        UnsupportedError: It is computed, and no field.
    """
    if node.field is None:
        raise UnsupportedError("bytes of something computed")
    return columns.contents(node.field)
