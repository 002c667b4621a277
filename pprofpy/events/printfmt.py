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
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pprofpy.events.tracepoint import Columns, Field, Ints, Tracepoint, as_text
from pprofpy.text import printable

Numbers = Ints | int
Value = Numbers | list[str] | list[bytes]
Evaluate = Callable[[Columns], Value]
Formatter = Callable[[Columns], list[str]]
"""Records to one line of text each."""

_U64 = (1 << 64) - 1


class UnsupportedError(ValueError):
    """C that we do not understand. Never leaves this module."""


@dataclass(frozen=True, slots=True)
class Node:
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


class _Token(NamedTuple):
    kind: str
    text: str


# -- the parts of C --------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<char>'(?:[^'\\]|\\.)')
      | (?P<number>0[xX][0-9a-fA-F]+[uUlL]* | \d+[uUlL]*)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<op>->|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>?:(){},.\[\]])
    )""",
    re.VERBOSE,
)
_BINARY = [
    ["||"],
    ["&&"],
    ["|"],
    ["^"],
    ["&"],
    ["==", "!="],
    ["<", ">", "<=", ">="],
    ["<<", ">>"],
    ["+", "-"],
    ["*", "/", "%"],
]
_PRECEDENCE = {operator: level for level, operators in enumerate(_BINARY) for operator in operators}
_TYPE_WORDS = frozenset(
    [
        "unsigned",
        "signed",
        "int",
        "long",
        "short",
        "char",
        "void",
        "const",
        "struct",
        "union",
        "enum",
        "bool",
        "_Bool",
        "size_t",
        "ssize_t",
        "u8",
        "u16",
        "u32",
        "u64",
        "s8",
        "s16",
        "s32",
        "s64",
        "__u8",
        "__u16",
        "__u32",
        "__u64",
        "__s8",
        "__s16",
        "__s32",
        "__s64",
        "uint8_t",
        "uint16_t",
        "uint32_t",
        "uint64_t",
        "int8_t",
        "int16_t",
        "int32_t",
        "int64_t",
    ]
)
_NARROW = {"8": 8, "16": 16, "32": 32}


_LONGEST_FORMAT, _MOST_TOKENS = 1 << 16, 20_000
_LONGEST_WORD, _LONGEST_LINE = 200, 4096
"""What a description may say at most; those of Linux say less. A name is printed for each of millions of records."""


def _tokenize(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    text = text.rstrip()
    if len(text) > _LONGEST_FORMAT:
        raise UnsupportedError("too long")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise UnsupportedError(text[position : position + 10])
        tokens.append(_Token(match.lastgroup, match[match.lastgroup]))
        position = match.end()
        if len(tokens) > _MOST_TOKENS:
            raise UnsupportedError("too long")
    return tokens


def _unescape(literal: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t", "0": "\0"}.get(match[1], match[1]), literal[1:-1])


def _wrap(value: int) -> int:
    """As a signed 64-bit number."""
    value &= _U64
    return value - (1 << 64) if value >> 63 else value


# -- parsing ---------------------------------------------------------------------------------------------------------


class _Parser:
    """Recursive descent over the arguments of a `print fmt`."""

    def __init__(self, tokens: Sequence[_Token], tracepoint: Tracepoint) -> None:
        self._tokens = tokens
        self._tracepoint = tracepoint
        self._position = 0

    def string(self, most: int = _LONGEST_WORD) -> str:
        """One or more literals in a row."""
        parts = []
        while self._peek().kind == "string":
            parts.append(_unescape(self._next().text))
        text = printable("".join(parts).replace("\n", " ").replace("\t", " "))
        if not parts or len(text) > most:
            raise UnsupportedError("no string, or one that is too long")
        return text

    def arguments(self) -> list[Node]:
        """`, expression` until the end."""
        found = []
        while self._accept(","):
            start = self._position
            try:
                found.append(self.expression())
                if self._peek().kind != "end" and self._peek().text != ",":
                    raise UnsupportedError(self._peek().text)
            except UnsupportedError:
                self._position = self._end_of_argument(start)
                found.append(_UNKNOWN)
        return found

    def _end_of_argument(self, position: int) -> int:
        """Where an argument that we do not understand ends."""
        depth = 0
        while self._tokens[position].kind != "end" and (depth or self._tokens[position].text != ","):
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(self._tokens[position].text, 0)
            position += 1
        return position

    def expression(self) -> Node:
        """The lowest level: `a ? b : c`."""
        condition = self._binary(0)
        if not self._accept("?"):
            return condition
        yes = self.expression()
        self._expect(":")
        return _choice(condition, yes, self.expression())

    def _binary(self, level: int) -> Node:
        left = self._unary()
        while (own := _PRECEDENCE.get(self._peek().text, -1)) >= level and self._peek().kind == "op":
            operator = self._next().text
            left = _apply(operator, left, self._binary(own + 1))
        return left

    def _unary(self) -> Node:
        for operator, function in _UNARY.items():
            if self._accept(operator):
                operand = _number(self._unary())
                return _computed(lambda one, f=function: f(one), operand)  # type: ignore[misc]
        if self._accept("*") or self._accept("&"):
            raise UnsupportedError("pointers")
        return self._postfix(self._primary())

    def _primary(self) -> Node:
        token = self._next()
        if token.kind == "number":
            if len(token.text) > _LONGEST_WORD:
                raise UnsupportedError("a number as long as this")
            return _constant(int(token.text.rstrip("uUlL"), 0 if token.text[:2] in ("0x", "0X") else 10))
        if token.kind == "char":
            return _constant(ord(_unescape(token.text)))
        if token.kind == "string":
            self._position -= 1
            text = self.string()
            return Node("text", lambda columns: [text] * len(columns))
        if token.text == "(":
            return self._parenthesis()
        if token.text == "REC":
            self._expect("->")
            return self._field(self._next().text)
        if token.text in self._tracepoint.constants:
            return _constant(self._tracepoint.constants[token.text])
        if token.kind == "name" and self._peek().text == "(":
            return self._call(token.text)
        raise UnsupportedError(token.text)

    def _parenthesis(self) -> Node:
        if (bits := self._cast()) is not None:
            return _narrowed(self._unary(), bits)
        inner = self.expression()
        self._expect(")")
        return inner

    def _cast(self) -> str | None:
        """After `(`: the type's name if this is a cast, which is then behind us; None if it is not."""
        words, position = [], self._position
        while self._tokens[position].kind == "name" or self._tokens[position].text == "*":
            words.append(self._tokens[position].text)
            position += 1
        if not words or self._tokens[position].text != ")":
            return None
        following = self._tokens[position + 1]
        is_type = words[0] in _TYPE_WORDS or words[-1] == "*"
        starts_operand = following.kind in ("name", "number", "string") or following.text in ("(", "~")
        if words[0] == "REC" or not (is_type or (len(words) == 1 and starts_operand)):
            return None
        self._position = position + 1
        return " ".join(words)

    def _postfix(self, node: Node) -> Node:
        while self._accept("["):
            index = self.expression()
            self._expect("]")
            node = _element(node, index)
        if self._peek().text in ("->", "."):
            raise UnsupportedError("members")
        return node

    def _field(self, name: str) -> Node:
        field = self._tracepoint.by_name.get(name)
        if field is None:
            raise UnsupportedError(name)
        return _of_field(field)

    def _call(self, name: str) -> Node:
        self._expect("(")
        if name in ("__get_str", "__get_rel_str", "__get_dynamic_array", "__get_rel_dynamic_array", "__get_cpumask"):
            node = self._field(self._next().text)
        elif name in ("__get_dynamic_array_len", "__get_rel_dynamic_array_len"):
            node = _computed_length(self._field(self._next().text))
        elif name in ("__print_flags", "__print_flags_u64"):
            value = _number(self.expression())
            self._expect(",")
            delimiter = self.string()
            node = _flags(value, delimiter, self._table())
        elif name in ("__print_symbolic", "__print_symbolic_u64"):
            node = _symbol(_number(self.expression()), self._table())
        elif name in ("__print_hex", "__print_hex_str", "__print_array"):
            arguments = [self.expression()]
            while self._accept(","):
                arguments.append(self.expression())
            node = _hex(name, arguments)
        elif name == "sizeof":
            node = _constant(self._size_of())
        elif name == "__builtin_expect":
            node = self.expression()
            self._expect(",")
            self.expression()
        else:
            raise UnsupportedError(name)
        self._expect(")")
        return node

    def _size_of(self) -> int:
        words = []
        while self._peek().kind == "name":
            words.append(self._next().text)
        size = _element_size(Field("", " ".join(words), 0, 0, False))
        if not size:
            raise UnsupportedError(f"sizeof({' '.join(words)})")
        return size

    def _table(self) -> dict[int, str] | None:
        """`, { value, "name" }, ...`; None if a value is a macro that only the kernel's compiler knows."""
        entries: dict[int, str] = {}
        known = True
        while self._accept(","):
            self._expect("{")
            start = self._position
            try:
                value = _number(self.expression()).evaluate(_NO_RECORDS)
                self._expect(",")
                name = self.string() if self._peek().kind == "string" else self._null()
            except UnsupportedError:
                known = False
                self._position = self._closing_brace(start)
            else:
                if isinstance(value, int) and name:
                    entries.setdefault(value, name)
            self._expect("}")
        return entries if known else None

    def _null(self) -> str:
        """A NULL in the place of a name: the end of a table."""
        if _number(self.expression()).evaluate(_NO_RECORDS) != 0:
            raise UnsupportedError("a computed name")
        return ""

    def _closing_brace(self, position: int) -> int:
        while self._tokens[position].text not in ("}", ""):
            position += 1
        return position

    def _peek(self) -> _Token:
        return self._tokens[self._position]

    def _next(self) -> _Token:
        token = self._tokens[self._position]
        if token.kind == "end":
            raise UnsupportedError("cut short")
        self._position += 1
        return token

    def _accept(self, text: str) -> bool:
        token = self._tokens[self._position]
        if token.kind != "op" or token.text != text:
            return False
        self._position += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise UnsupportedError(f"no {text}")


# -- evaluation ------------------------------------------------------------------------------------------------------

_NO_RECORDS = Columns(np.zeros((0, 8), np.uint8))


def _constant(value: int) -> Node:
    wrapped = _wrap(value)
    return Node("number", lambda _: wrapped, is_unsigned=value >> 63 != 0)


_NULL_TEXT = Node("text", lambda columns: ["(null)"] * len(columns))
_UNKNOWN = Node("text", lambda columns: ["?"] * len(columns))
"""In the place of an argument that only the kernel can compute."""


def _of_field(field: Field) -> Node:
    if field.is_text:
        return Node("text", lambda columns: columns.texts(field), field=field)
    if field.is_number:
        return Node(
            "number", lambda columns: columns.numbers(field), not field.is_signed and field.size == 8, field=field
        )
    return Node("bytes", lambda columns: columns.contents(field), field=field)


def _number(node: Node) -> Node:
    if node.kind != "number":
        raise UnsupportedError("a number was expected")
    return node


def _values(node: Node, columns: Columns) -> Numbers:
    value = node.evaluate(columns)
    if isinstance(value, list):
        raise UnsupportedError("a number was expected")
    return value


def _computed(function: Callable[[Ints], Ints], operand: Node) -> Node:
    def evaluate(columns: Columns) -> Value:
        return _plain(function(np.asarray(_values(operand, columns), np.int64)))

    return Node("number", evaluate, operand.is_unsigned)


def _plain(result: Ints) -> Numbers:
    """A column stays one; a single number becomes Python's."""
    return int(result) if np.ndim(result) == 0 else np.asarray(result).astype(np.int64)


_UNARY: dict[str, Callable[[Ints], Ints]] = {
    "-": lambda one: -one,
    "~": lambda one: ~one,
    "!": lambda one: np.asarray(one == 0).astype(np.int64),
    "+": lambda one: one,
}


def _apply(operator: str, left: Node, right: Node) -> Node:
    left, right = _number(left), _number(right)
    is_unsigned = left.is_unsigned if operator in ("<<", ">>") else left.is_unsigned or right.is_unsigned

    def evaluate(columns: Columns) -> Value:
        one, other = (np.asarray(_values(node, columns), np.int64) for node in (left, right))
        if is_unsigned and operator in _DIFFERS_UNSIGNED:
            one, other = one.view(np.uint64), other.view(np.uint64)
        with np.errstate(all="ignore"):
            return _plain(np.asarray(_OPERATORS[operator](one, other)))

    return Node("number", evaluate, is_unsigned and operator not in _TRUTH)


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


def _narrowed(node: Node, type_name: str) -> Node:
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
        return Node("number", node.evaluate, unsigned, node.field)
    kind = np.dtype(f"{'u' if unsigned else 'i'}{bits // 8}")
    return _computed(lambda one: one.astype(kind).astype(np.int64), node)


def _choice(condition: Node, yes: Node, no: Node) -> Node:
    condition = _number(condition)
    if {yes.kind, no.kind} == {"text", "number"}:
        yes, no = (_NULL_TEXT if node.kind == "number" else node for node in (yes, no))
    if yes.kind != no.kind:
        raise UnsupportedError("two kinds in a choice")

    def evaluate(columns: Columns) -> Value:
        chosen = np.broadcast_to(np.asarray(_values(condition, columns)) != 0, len(columns))
        first, second = yes.evaluate(columns), no.evaluate(columns)
        if isinstance(first, list) and isinstance(second, list):
            return [a if is_first else b for is_first, a, b in zip(chosen.tolist(), first, second, strict=True)]  # type: ignore[return-value]
        return np.where(chosen, np.asarray(first, np.int64), np.asarray(second, np.int64))

    return Node(yes.kind, evaluate, yes.is_unsigned or no.is_unsigned)


def _computed_length(node: Node) -> Node:
    if node.field is None or not node.field.location:
        raise UnsupportedError("the length of something fixed")
    place = Field(node.field.name, "", node.field.offset, 4, False)
    return Node("number", lambda columns: columns.numbers(place) >> 16)


def _element(node: Node, index: Node) -> Node:
    """`array[index]` of a fixed array of bytes or words."""
    field = node.field
    if field is None or not field.is_array:
        raise UnsupportedError("an element of something else")
    width = _element_size(field)

    def evaluate(columns: Columns) -> Value:
        place = _values(index, columns)
        if not isinstance(place, int) or not 0 <= place < field.size // width:
            raise UnsupportedError("a computed index")
        return columns.numbers(Field(field.name, field.type, field.offset + place * width, width, field.is_signed))

    _ = evaluate(Columns(np.zeros((0, field.offset + field.size), np.uint8)))
    return Node("number", evaluate, width == 8 and not field.is_signed)


def _element_size(field: Field) -> int:
    match = re.search(r"(8|16|32|64)(?:_t)?$", field.type)
    if match:
        return int(match[1]) // 8
    return {"char": 1, "unsigned char": 1, "int": 4, "unsigned int": 4, "long": 8, "unsigned long": 8}.get(
        field.type, field.size
    )


def _named(node: Node, name_of: Callable[[int], str]) -> Node:
    """A text for each number; each different number is put into words only once."""

    def evaluate(columns: Columns) -> Value:
        numbers = np.broadcast_to(_values(node, columns), len(columns))
        different, place = np.unique(numbers, return_inverse=True)
        words = [name_of(value) for value in different.tolist()]
        return [words[index] for index in place.tolist()]

    return Node("text", evaluate)


def _flags(value: Node, delimiter: str, table: dict[int, str] | None) -> Node:
    known = table

    def name_of(number: int) -> str:
        if known is None:
            return f"{number & _U64:#x}"
        rest, names = number, []
        for mask, name in known.items():
            if mask and rest & mask == mask:
                names.append(name)
                rest &= ~mask
        if rest:
            names.append(f"{rest & _U64:#x}")
        return delimiter.join(names)[:_LONGEST_LINE]

    return _named(value, name_of)


def _symbol(value: Node, table: dict[int, str] | None) -> Node:
    known = table or {}
    return _named(value, lambda number: known.get(number, f"{number & _U64:#x}"))


def _hex(name: str, arguments: list[Node]) -> Node:
    """`__print_hex(buffer, length)` and its like."""
    buffer, length = arguments[0], _number(arguments[1])
    if buffer.kind == "number":
        raise UnsupportedError("hex of a pointer")
    size = arguments[2].evaluate(_NO_RECORDS) if name == "__print_array" and len(arguments) > 2 else 1
    if not isinstance(size, int) or size not in (1, 2, 4, 8):
        raise UnsupportedError("elements of unknown size")

    def show(content: bytes) -> str:
        if name == "__print_array":
            numbers = [content[at : at + size][::-1].hex() for at in range(0, len(content), size)]
            return "{" + ",".join(f"0x{number.lstrip('0') or '0'}" for number in numbers) + "}"
        return content.hex() if name == "__print_hex_str" else content.hex(" ")

    def evaluate(columns: Columns) -> Value:
        contents = _contents(buffer, columns)
        lengths = np.broadcast_to(np.asarray(_values(length, columns)), len(columns)).tolist()
        return [show(content[: max(count, 0) * size]) for content, count in zip(contents, lengths, strict=True)]

    return Node("text", evaluate)


def _contents(node: Node, columns: Columns) -> list[bytes]:
    if node.field is None:
        raise UnsupportedError("bytes of something computed")
    return columns.contents(node.field)


# -- the format string -----------------------------------------------------------------------------------------------

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
        text, arguments = _parsed(tracepoint)
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


def _parsed(tracepoint: Tracepoint) -> tuple[str, list[Node]]:
    parser = _Parser([*_tokenize(tracepoint.print_format), _Token("end", "")], tracepoint)
    return parser.string(_LONGEST_LINE), parser.arguments()


def _compiled(tracepoint: Tracepoint, symbols: Mapping[int, str]) -> Formatter:
    text, nodes = _parsed(tracepoint)
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
        fixed = (template % ())[:_LONGEST_LINE]
        return lambda records: [fixed] * len(records)
    return lambda records: [
        (template % row)[:_LONGEST_LINE] for row in zip(*(column(records) for column in columns), strict=True)
    ]


def _conversion(match: re.Match[str], arguments: Iterator[Node], symbols: Mapping[int, str]) -> _Part:
    letter, flags, width = match["letter"], match["flags"], match["width"] or ""
    if any(number.isdigit() and int(number) > _WIDEST for number in (width, match["precision"] or "")):
        raise UnsupportedError("a column as wide as this")
    if width == "*" and letter[:2] != "pb":
        raise UnsupportedError("a computed width")
    if width == "*":
        _following(arguments)  # how many bits a bitmap has; its bytes are shown
    limit = _number(_following(arguments)) if match["precision"] == "*" else None
    node = _following(arguments)
    if node is _UNKNOWN:
        return _Part("%s", lambda columns: ["?"] * len(columns))
    if letter == "s":
        precision = int(match["precision"]) if (match["precision"] or "").isdigit() else None
        return _Part(f"%{flags.replace('0', '')}{width}s", _text_column(node, limit, precision))
    if letter[:2] in _SYMBOL_LETTERS and node.kind == "number":
        return _Part("%s", lambda columns: [_symbol_name(one & _U64, symbols) for one in _list(node, columns)])
    if letter[0] == "p":
        return _Part("%s", _pointer_column(node, letter[1:]))
    if letter == "c":
        return _Part("%s", lambda columns: [as_text(bytes([one & 0xFF])) for one in _list(node, columns)])
    bits = _BITS[match["length"] or ""]
    number = _number(node)
    python_letter = "d" if letter in "diu" else letter
    if "#" in flags and letter == "o":
        raise UnsupportedError("#o")
    return _Part(
        f"%{flags}{width}{'.' + match['precision'] if match['precision'] else ''}{python_letter}",
        lambda columns: _sized(_values(number, columns), bits, letter in "di", len(columns)),
    )


def _following(arguments: Iterator[Node]) -> Node:
    node = next(arguments, None)
    if node is None:
        raise UnsupportedError("fewer arguments than conversions")
    return node


def _list(node: Node, columns: Columns) -> list[int]:
    return np.broadcast_to(np.asarray(_values(_number(node), columns)), len(columns)).tolist()  # type: ignore[no-any-return]


def _sized(numbers: Numbers, bits: int, is_signed: bool, count: int) -> list[int]:
    """Numbers as a conversion of that width and sign sees them."""
    column = np.broadcast_to(np.asarray(numbers, np.int64), count)
    return column.astype(np.dtype(f"{'i' if is_signed else 'u'}{bits // 8}")).tolist()  # type: ignore[no-any-return]


def _text_column(node: Node, limit: Node | None, precision: int | None) -> Callable[[Columns], list[str]]:
    if node.kind == "number":
        return lambda columns: [f"{one & _U64:#x}" for one in _list(node, columns)]
    if node.kind == "bytes":
        texts: Callable[[Columns], list[str]] = lambda columns: [as_text(one) for one in _contents(node, columns)]  # noqa: E731
    else:
        texts = lambda columns: node.evaluate(columns)  # type: ignore[assignment, return-value]  # noqa: E731
    if limit is None:
        return texts if precision is None else lambda columns: [text[:precision] for text in texts(columns)]
    limits = limit
    if node.field is not None:
        # Counted in bytes, before anything is escaped, and without a NUL at the end.
        return lambda columns: [
            as_text(content[: max(size, 0)] + b"\0")
            for content, size in zip(_contents(node, columns), _list(limits, columns), strict=True)
        ]
    return lambda columns: [
        text[: max(size, 0)] for text, size in zip(texts(columns), _list(limits, columns), strict=True)
    ]


def _pointer_column(node: Node, extension: str) -> Callable[[Columns], list[str]]:
    """`%p`, and its extensions that show what an address points to."""
    if node.kind == "text":
        raise UnsupportedError("the address of a string")
    if node.kind == "number":
        return lambda columns: [f"{one & _U64:#x}" for one in _list(node, columns)]
    show = _POINTED.get(extension, bytes.hex)
    return lambda columns: [show(content) for content in _contents(node, columns)]


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
