"""Reading the C of a `print fmt`: from its text to the nodes of `expressions`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pprofpy.events.expressions import (
    LONGEST_LINE,
    NO_RECORDS,
    UNARY,
    UNKNOWN,
    Expression,
    UnsupportedError,
    applied,
    choice,
    computed,
    computed_length,
    constant,
    element_of,
    element_size,
    flags_of,
    hex_of,
    narrowed,
    number_of,
    of_field,
    symbol_of,
)
from pprofpy.events.tracepoint import Field, Tracepoint
from pprofpy.text import printable


class _Token(NamedTuple):
    kind: str
    text: str


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


_LONGEST_FORMAT, _MOST_TOKENS = 1 << 16, 20_000
_LONGEST_WORD = 200
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

    def arguments(self) -> list[Expression]:
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
                found.append(UNKNOWN)
        return found

    def _end_of_argument(self, position: int) -> int:
        """Where an argument that we do not understand ends."""
        depth = 0
        while self._tokens[position].kind != "end" and (depth or self._tokens[position].text != ","):
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(self._tokens[position].text, 0)
            position += 1
        return position

    def expression(self) -> Expression:
        """The lowest level: `a ? b : c`."""
        condition = self._binary(0)
        if not self._accept("?"):
            return condition
        yes = self.expression()
        self._expect(":")
        return choice(condition, yes, self.expression())

    def _binary(self, level: int) -> Expression:
        left = self._unary()
        while (own := _PRECEDENCE.get(self._peek().text, -1)) >= level and self._peek().kind == "op":
            operator = self._next().text
            left = applied(operator, left, self._binary(own + 1))
        return left

    def _unary(self) -> Expression:
        for operator, function in UNARY.items():
            if self._accept(operator):
                operand = number_of(self._unary())
                return computed(lambda one, f=function: f(one), operand)  # type: ignore[misc]
        if self._accept("*") or self._accept("&"):
            raise UnsupportedError("pointers")
        return self._postfix(self._primary())

    def _primary(self) -> Expression:
        token = self._next()
        if token.kind == "number":
            if len(token.text) > _LONGEST_WORD:
                raise UnsupportedError("a number as long as this")
            return constant(int(token.text.rstrip("uUlL"), 0 if token.text[:2] in ("0x", "0X") else 10))
        if token.kind == "char":
            return constant(ord(_unescape(token.text)))
        if token.kind == "string":
            self._position -= 1
            text = self.string()
            return Expression("text", lambda columns: [text] * len(columns))
        if token.text == "(":
            return self._parenthesis()
        if token.text == "REC":
            self._expect("->")
            return self._field(self._next().text)
        if token.text in self._tracepoint.constants:
            return constant(self._tracepoint.constants[token.text])
        if token.kind == "name" and self._peek().text == "(":
            return self._call(token.text)
        raise UnsupportedError(token.text)

    def _parenthesis(self) -> Expression:
        if (bits := self._cast()) is not None:
            return narrowed(self._unary(), bits)
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

    def _postfix(self, node: Expression) -> Expression:
        while self._accept("["):
            index = self.expression()
            self._expect("]")
            node = element_of(node, index)
        if self._peek().text in ("->", "."):
            raise UnsupportedError("members")
        return node

    def _field(self, name: str) -> Expression:
        field = self._tracepoint.by_name.get(name)
        if field is None:
            raise UnsupportedError(name)
        return of_field(field)

    def _call(self, name: str) -> Expression:
        self._expect("(")
        if name in ("__get_str", "__get_rel_str", "__get_dynamic_array", "__get_rel_dynamic_array", "__get_cpumask"):
            node = self._field(self._next().text)
        elif name in ("__get_dynamic_array_len", "__get_rel_dynamic_array_len"):
            node = computed_length(self._field(self._next().text))
        elif name in ("__print_flags", "__print_flags_u64"):
            value = number_of(self.expression())
            self._expect(",")
            delimiter = self.string()
            node = flags_of(value, delimiter, self._table())
        elif name in ("__print_symbolic", "__print_symbolic_u64"):
            node = symbol_of(number_of(self.expression()), self._table())
        elif name in ("__print_hex", "__print_hex_str", "__print_array"):
            arguments = [self.expression()]
            while self._accept(","):
                arguments.append(self.expression())
            node = hex_of(name, arguments)
        elif name == "sizeof":
            node = constant(self._size_of())
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
        size = element_size(Field("", " ".join(words), 0, 0, False))
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
                value = number_of(self.expression()).evaluate(NO_RECORDS)
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
        if number_of(self.expression()).evaluate(NO_RECORDS) != 0:
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


def parsed_format(tracepoint: Tracepoint) -> tuple[str, list[Expression]]:
    """The format string of a description, and its arguments.

    Raises:
        UnsupportedError: It is C that we do not understand.
    """
    parser = _Parser([*_tokenize(tracepoint.print_format), _Token("end", "")], tracepoint)
    return parser.string(LONGEST_LINE), parser.arguments()
