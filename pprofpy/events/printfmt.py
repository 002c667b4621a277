"""A tracepoint's `print fmt`: a format string and C expressions, compiled once, evaluated for many records at a time.

    print fmt: "comm=%s pid=%d", REC->comm, REC->pid

Understood is the C that the kernel's descriptions are made of: fields, constants, casts, operators, `?:`, helpers like
`__print_flags`, `__print_symbolic`, `__get_str`, `__print_hex`. Numbers are evaluated as 64-bit integers
in columns, and take the width and sign of their conversion (`%d`, `%llx`) when they are printed. A description that
needs more than that is no error: `compile_format` then falls back to `name=value` of each field.

Source: Linux, Documentation/trace/events.rst and lib/vsprintf.c (the `%p` extensions).
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from pprofpy.events.expression_parser import parsed_format
from pprofpy.events.expressions import (
    LONGEST_LINE,
    U64_MASK,
    UNKNOWN,
    Expression,
    Numbers,
    UnsupportedError,
    contents_of,
    number_of,
    values_of,
)
from pprofpy.events.tracepoint import Columns, Field, Tracepoint, as_text
from pprofpy.text import printable

Formatter = Callable[[Columns], list[str]]
"""Records to one line of text each."""


# -- the parts of C --------------------------------------------------------------------------------------------------


# -- evaluation ------------------------------------------------------------------------------------------------------


_CONVERSION = re.compile(
    r"%(?P<flags>[-+ #0]*)(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d+))?(?P<length>hh|h|ll|l|L|z|t|j)?"
    r"(?P<letter>p(?:[sSFfBbIiMmUdDxKhae][a-zA-Z0-9]*)?|[diouxXcs%])"
)
_BITS = {"hh": 8, "h": 16, "": 32, "l": 64, "ll": 64, "L": 64, "z": 64, "t": 64, "j": 64}


_SYMBOL_LETTERS = frozenset({"ps", "pS", "pF", "pf", "pB"})


_WIDEST = 256


class _Part(NamedTuple):
    """One conversion: what Python's `%` is to do, and the column it does it to."""

    template: str
    column: Callable[[Columns], list[int] | list[str]]


def compile_format(tracepoint: Tracepoint, symbols: Mapping[int, str] | None = None) -> Formatter:
    """How to put records of this tracepoint into words, as the kernel itself would.

    Args:
        tracepoint: Its description.
        symbols: Names of addresses (as unsigned numbers), consulted each time.
    """
    try:
        formatter = _compiled(tracepoint, {} if symbols is None else symbols)
        for byte in (0, 0xFF):  # it must at least do for these
            formatter(Columns(np.full((1, max(tracepoint.size, 8)), byte, np.uint8)))
    except _UNFIT:
        return field_list(tracepoint)

    def format_or_list(columns: Columns) -> list[str]:
        try:
            return formatter(columns)
        except _UNFIT:
            return field_list(tracepoint)(columns)

    return format_or_list


_UNFIT = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)
"""What comes of C that makes no sense: descriptions come from files, too."""


def symbol_fields(tracepoint: Tracepoint) -> list[Field]:
    """The fields that hold addresses whose names are to be printed (`%ps`)."""
    found = []
    with suppress(*_UNFIT):
        text, arguments = parsed_format(tracepoint)
        nodes = iter(arguments)
        for conversion in _CONVERSION.finditer(text):
            if conversion["letter"] == "%":
                continue
            used = [_following(nodes) for _ in range(1 + (conversion["width"], conversion["precision"]).count("*"))]
            if conversion["letter"][:2] in _SYMBOL_LETTERS and used[-1].field:
                found.append(used[-1].field)
    return found


def field_list(tracepoint: Tracepoint) -> Formatter:
    """`name=value` of each field, by its type alone."""
    parts = [
        _Part(printable(field.name).replace("%", "%%") + "=%s", _plain_column(field)) for field in tracepoint.fields
    ]
    return _joined(" ".join(part.template for part in parts), [part.column for part in parts])


def _plain_column(field: Field) -> Callable[[Columns], list[str]]:
    if field.is_text:
        return lambda columns: columns.texts(field)
    if not field.is_number:
        return lambda columns: [content.hex() for content in columns.contents(field)]
    bits, hexadecimal = field.size * 8, field.is_pointer
    return lambda columns: [
        f"{number:#x}" if hexadecimal else str(number)
        for number in _sized(columns.numbers(field), bits, field.is_signed, len(columns))
    ]


def _compiled(tracepoint: Tracepoint, symbols: Mapping[int, str]) -> Formatter:
    text, nodes = parsed_format(tracepoint)
    arguments = iter(nodes)
    template, columns, position = "", [], 0
    for match in re.finditer("%", text):
        if match.start() < position:
            continue
        conversion = _CONVERSION.match(text, match.start())
        if conversion is None:
            raise UnsupportedError(text[match.start() :])
        template += text[position : match.start()].replace("%", "%%")
        position = conversion.end()
        if conversion["letter"] == "%":
            template += "%%"
            continue
        part = _conversion(conversion, arguments, symbols)
        template += part.template
        columns.append(part.column)
    if next(arguments, None) is not None:
        raise UnsupportedError("more arguments than conversions")
    return _joined((template + text[position:]).replace("\n", " ").strip(), columns)


def _joined(template: str, columns: Sequence[Callable[[Columns], list[int] | list[str]]]) -> Formatter:
    if not columns:
        fixed = (template % ())[:LONGEST_LINE]
        return lambda records: [fixed] * len(records)
    return lambda records: [
        (template % row)[:LONGEST_LINE] for row in zip(*(column(records) for column in columns), strict=True)
    ]


def _conversion(match: re.Match[str], arguments: Iterator[Expression], symbols: Mapping[int, str]) -> _Part:
    letter, flags, width = match["letter"], match["flags"], match["width"] or ""
    if any(number.isdigit() and int(number) > _WIDEST for number in (width, match["precision"] or "")):
        raise UnsupportedError("a column as wide as this")
    if width == "*" and letter[:2] != "pb":
        raise UnsupportedError("a computed width")
    if width == "*":
        _following(arguments)  # how many bits a bitmap has; its bytes are shown
    limit = number_of(_following(arguments)) if match["precision"] == "*" else None
    node = _following(arguments)
    if node is UNKNOWN:
        return _Part("%s", lambda columns: ["?"] * len(columns))
    if letter == "s":
        precision = int(match["precision"]) if (match["precision"] or "").isdigit() else None
        return _Part(f"%{flags.replace('0', '')}{width}s", _text_column(node, limit, precision))
    if letter[:2] in _SYMBOL_LETTERS and node.kind == "number":
        return _Part("%s", lambda columns: [_symbol_name(one & U64_MASK, symbols) for one in _list(node, columns)])
    if letter[0] == "p":
        return _Part("%s", _pointer_column(node, letter[1:]))
    if letter == "c":
        return _Part("%s", lambda columns: [as_text(bytes([one & 0xFF])) for one in _list(node, columns)])
    bits = _BITS[match["length"] or ""]
    number = number_of(node)
    python_letter = "d" if letter in "diu" else letter
    if "#" in flags and letter == "o":
        raise UnsupportedError("#o")
    return _Part(
        f"%{flags}{width}{'.' + match['precision'] if match['precision'] else ''}{python_letter}",
        lambda columns: _sized(values_of(number, columns), bits, letter in "di", len(columns)),
    )


def _following(arguments: Iterator[Expression]) -> Expression:
    node = next(arguments, None)
    if node is None:
        raise UnsupportedError("fewer arguments than conversions")
    return node


def _list(node: Expression, columns: Columns) -> list[int]:
    return np.broadcast_to(np.asarray(values_of(number_of(node), columns)), len(columns)).tolist()  # type: ignore[no-any-return]


def _sized(numbers: Numbers, bits: int, is_signed: bool, count: int) -> list[int]:
    """Numbers as a conversion of that width and sign sees them."""
    column = np.broadcast_to(np.asarray(numbers, np.int64), count)
    return column.astype(np.dtype(f"{'i' if is_signed else 'u'}{bits // 8}")).tolist()  # type: ignore[no-any-return]


def _text_column(node: Expression, limit: Expression | None, precision: int | None) -> Callable[[Columns], list[str]]:
    if node.kind == "number":
        return lambda columns: [f"{one & U64_MASK:#x}" for one in _list(node, columns)]
    if node.kind == "bytes":
        texts: Callable[[Columns], list[str]] = lambda columns: [as_text(one) for one in contents_of(node, columns)]  # noqa: E731
    else:
        texts = lambda columns: node.evaluate(columns)  # type: ignore[assignment, return-value]  # noqa: E731
    if limit is None:
        return texts if precision is None else lambda columns: [text[:precision] for text in texts(columns)]
    limits = limit
    if node.field is not None:
        # Counted in bytes, before anything is escaped, and without a NUL at the end.
        return lambda columns: [
            as_text(content[: max(size, 0)] + b"\0")
            for content, size in zip(contents_of(node, columns), _list(limits, columns), strict=True)
        ]
    return lambda columns: [
        text[: max(size, 0)] for text, size in zip(texts(columns), _list(limits, columns), strict=True)
    ]


def _pointer_column(node: Expression, extension: str) -> Callable[[Columns], list[str]]:
    """`%p`, and its extensions that show what an address points to."""
    if node.kind == "text":
        raise UnsupportedError("the address of a string")
    if node.kind == "number":
        return lambda columns: [f"{one & U64_MASK:#x}" for one in _list(node, columns)]
    show = _POINTED.get(extension, bytes.hex)
    return lambda columns: [show(content) for content in contents_of(node, columns)]


def _symbol_name(address: int, symbols: Mapping[int, str]) -> str:
    return symbols.get(address) or f"{address:#x}"


def _address(content: bytes) -> str:
    try:
        address = ipaddress.ip_address(content)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return f"::ffff:{mapped}" if mapped else str(address)
    except ValueError:
        return content.hex()


def _socket_address(content: bytes) -> str:
    """A struct sockaddr: IPv4 or IPv6 with its port."""
    family = int.from_bytes(content[:2], "little")
    port = int.from_bytes(content[2:4], "big")
    if family == 2:
        return f"{_address(content[4:8])}:{port}"
    return f"[{_address(content[8:24])}]:{port}" if family == 10 and len(content) >= 24 else content.hex()


_POINTED: dict[str, Callable[[bytes], str]] = {
    "I4": _address,
    "I6": _address,
    "I6c": _address,
    "ISpc": _socket_address,
    "M": lambda content: content.hex(":"),
    "U": lambda content: str(uuid.UUID(bytes=content)) if len(content) == 16 else content.hex(),
}
