"""Names of Rust functions as their authors wrote them; without the hashes that tell builds and crates apart.

Names come from files that anybody may have made: what is read of one is bounded in steps, in depth and in length, and
whatever is not understood is left to the caller as it is.

Source: RFC 2603 and https://doc.rust-lang.org/rustc/symbol-mangling/v0.html (v0, `_R…`); for the older names, which
pretend to be C++, rustc's compiler/rustc_symbol_mangling/src/legacy.rs. Positions in back references count from behind
the `_R`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LONGEST_TEXT = 4_096
_MOST_STEPS = 4_096
_DEEPEST = 100
_MOST_LIFETIMES = 26
"""They are called 'a to 'z."""

_V0 = re.compile(r"_R(?=[A-Z])(\w{1,4000})(?:[.$][!-~]*)?", re.ASCII)
_LEGACY = re.compile(r"_?_ZN([\w.$]{1,4000}?)17h[0-9a-f]{16}E(?:\.[!-~]*)?", re.ASCII)
_ESCAPES = re.compile(r"\.\.|\$(?:(SP|BP|RF|LT|GT|LP|RP|C)|u([0-9a-f]{1,6}))\$|\$")
_ESCAPED = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}
_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8", "i": "isize", "j": "usize",
    "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_", "s": "i16", "t": "u16", "u": "()", "v": "...",
    "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip
_LENGTH = re.compile(r"0|[1-9]\d{0,3}", re.ASCII)
_BASE_62 = re.compile(r"([0-9A-Za-z]{0,11})_")
_LITERAL = re.compile(r"(n?)([0-9a-f]{1,32})_")
_DIGITS = {digit: value for value, digit in enumerate("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")}


def rust_name(symbol: str) -> str:
    """What a symbol of Rust's means, v0 or legacy; empty if it is none, or is not understood.

    `_RNvCs1_3foo3bar` is `foo::bar`, as is `_ZN3foo3bar17h0123456789abcdefE`.
    """
    try:
        if found := _V0.fullmatch(symbol):
            return _Reader(found[1]).symbol()
        if found := _LEGACY.fullmatch(symbol):
            return _legacy(found[1])
    except (_NotUnderstoodError, UnicodeError):
        pass
    return ""


class _NotUnderstoodError(Exception):
    """This is not a name, or one of a kind that we do not know."""


def _legacy(text: str) -> str:
    """Names, each behind its length."""
    parts, at = [], 0
    while at < len(text):
        length = _LENGTH.match(text, at)
        if not length or length.end() + int(length[0]) > len(text):
            raise _NotUnderstoodError
        at = length.end() + int(length[0])
        part = text[length.end() : at]
        parts.append(_ESCAPES.sub(_unescaped, part.removeprefix("_") if part.startswith("_$") else part))
    return "::".join(parts)


def _unescaped(found: re.Match[str]) -> str:
    if found[0] == "..":
        return "::"
    if found[1]:
        return _ESCAPED[found[1]]
    if not found[2]:
        raise _NotUnderstoodError
    character = _character(int(found[2], 16))
    if not character.isprintable():
        raise _NotUnderstoodError
    return character


def _character(code: int) -> str:
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise _NotUnderstoodError
    return chr(code)


class _Reader:
    """Reads a v0 name from left to right, and writes down what it means on the way."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._said: list[str] = []
        self._room, self._steps, self._depth = _LONGEST_TEXT, _MOST_STEPS, 0
        self._silent, self._lifetimes = False, 0
        self._paths: dict[str, Callable[[bool, bool], bool]] = {
            "C": self._crate, "M": self._inherent, "X": self._of_trait_here, "Y": self._of_trait, "N": self._nested,
            "I": self._with_arguments,
        }  # fmt: skip
        self._types: dict[str, Callable[[], None]] = {
            "A": self._array, "S": self._slice, "T": self._tuple, "R": self._reference, "Q": self._mutable_reference,
            "P": lambda: self._pointer("*const "), "O": lambda: self._pointer("*mut "), "F": self._function,
            "D": self._dynamic,
        }  # fmt: skip

    def symbol(self) -> str:
        """All of it; the crate that instantiated a generic function is not said."""
        self._path()
        if self._at < len(self._text):
            self._skip_path()
        if self._at < len(self._text):
            raise _NotUnderstoodError
        return "".join(self._said)

    # -- characters ------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if self._silent:
            return
        self._room -= len(text)
        if self._room < 0:
            raise _NotUnderstoodError
        self._said.append(text)

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise _NotUnderstoodError
        self._at += 1
        return self._text[self._at - 1]

    def _takes(self, character: str) -> bool:
        """Is it the next one? Then it is taken."""
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def _number(self) -> int:
        """In base 62, ended by `_`, which alone is 0."""
        found = _BASE_62.match(self._text, self._at)
        if not found:
            raise _NotUnderstoodError
        self._at = found.end()
        number = 0
        for digit in found[1]:
            number = number * 62 + _DIGITS[digit]
        return number + 1 if found[1] else 0

    def _tagged_number(self, tag: str) -> int:
        """One more than the number behind a tag; 0 without that."""
        return self._number() + 1 if self._takes(tag) else 0

    def _identifier(self) -> str:
        """A name behind its length; with `u` in front of that, in Punycode with `_` for the hyphen."""
        is_encoded = self._takes("u")
        length = _LENGTH.match(self._text, self._at)
        if not length:
            raise _NotUnderstoodError
        self._at = length.end()
        self._takes("_")
        name = self._text[self._at : self._at + int(length[0])]
        self._at += int(length[0])
        if self._at > len(self._text):
            raise _NotUnderstoodError
        if is_encoded:
            plain, mark, encoded = name.rpartition("_")
            name = f"{plain}{'-' if mark else ''}{encoded}".encode("ascii").decode("punycode")
            if not name.isidentifier():
                raise _NotUnderstoodError
        return name

    def _deeper(self) -> None:
        self._depth += 1
        self._steps -= 1
        if self._depth > _DEEPEST or self._steps < 0:
            raise _NotUnderstoodError

    def _referred(self, read: Callable[[], bool]) -> bool:
        """Read again what stands further left."""
        here = self._at - 1
        place = self._number()
        if place >= here:
            raise _NotUnderstoodError
        if self._silent:
            return False
        back, self._at = self._at, place
        found = read()
        self._at = back
        return found

    def _until_end(self, read: Callable[[], object]) -> int:
        """Read up to an `E`, with commas between; returns how many there were."""
        count = 0
        while not self._takes("E"):
            self._say(", " if count else "")
            read()
            count += 1
        return count

    # -- paths -----------------------------------------------------------------------------------------------------

    def _path(self, in_type: bool = False, stays_open: bool = False) -> bool:
        """With `stays_open`, the `>` of its generic arguments is left to the caller: returns if there is one."""
        self._deeper()
        tag = self._next()
        if tag == "B":
            is_open = self._referred(lambda: self._path(in_type, stays_open))
        elif tag in self._paths:
            is_open = self._paths[tag](in_type, stays_open)
        else:
            raise _NotUnderstoodError
        self._depth -= 1
        return is_open

    def _skip_path(self) -> None:
        before, self._silent = self._silent, True
        self._path()
        self._silent = before

    def _crate(self, _in_type: bool, _stays_open: bool) -> bool:
        self._tagged_number("s")
        self._say(self._identifier())
        return False

    def _inherent(self, _in_type: bool, _stays_open: bool) -> bool:
        self._tagged_number("s")
        self._skip_path()
        self._say("<")
        self._type()
        self._say(">")
        return False

    def _of_trait_here(self, in_type: bool, stays_open: bool) -> bool:
        self._tagged_number("s")
        self._skip_path()
        return self._of_trait(in_type, stays_open)

    def _of_trait(self, _in_type: bool, _stays_open: bool) -> bool:
        self._say("<")
        self._type()
        self._say(" as ")
        self._path(in_type=True)
        self._say(">")
        return False

    def _nested(self, in_type: bool, _stays_open: bool) -> bool:
        kind = self._next()
        if not kind.isalpha():
            raise _NotUnderstoodError
        self._path(in_type)
        number, name = self._tagged_number("s"), self._identifier()
        if kind.isupper():
            kind = {"C": "closure", "S": "shim"}.get(kind, kind)
            self._say(f"::{{{kind}{':' if name else ''}{name}#{number}}}")
        elif name:
            self._say(f"::{name}")
        return False

    def _with_arguments(self, in_type: bool, stays_open: bool) -> bool:
        self._path(in_type)
        self._say("<" if in_type else "::<")
        self._until_end(self._argument)
        self._say("" if stays_open else ">")
        return stays_open

    def _argument(self) -> None:
        if self._takes("L"):
            self._say(self._lifetime(self._number()))
        elif self._takes("K"):
            self._constant()
        else:
            self._type()

    # -- types -----------------------------------------------------------------------------------------------------

    def _type(self) -> bool:
        self._deeper()
        tag = self._next()
        if tag in _BASIC:
            self._say(_BASIC[tag])
        elif tag in self._types:
            self._types[tag]()
        elif tag == "B":
            self._referred(self._type)
        else:
            self._at -= 1
            self._path(in_type=True)
        self._depth -= 1
        return False

    def _array(self) -> None:
        self._say("[")
        self._type()
        self._say("; ")
        self._constant()
        self._say("]")

    def _slice(self) -> None:
        self._say("[")
        self._type()
        self._say("]")

    def _tuple(self) -> None:
        self._say("(")
        self._say(",)" if self._until_end(self._type) == 1 else ")")

    def _reference(self, mutable: str = "") -> None:
        lifetime = self._number() if self._takes("L") else 0
        self._say(f"&{self._lifetime(lifetime)} " if lifetime else "&")
        self._pointer(mutable)

    def _mutable_reference(self) -> None:
        self._reference("mut ")

    def _pointer(self, kind: str) -> None:
        self._say(kind)
        self._type()

    def _function(self) -> None:
        outer = self._lifetimes
        self._binder()
        self._say("unsafe " if self._takes("U") else "")
        if self._takes("K"):
            abi = "C" if self._takes("C") else self._identifier().replace("_", "-")
            self._say(f'extern "{abi}" ')
        self._say("fn(")
        self._until_end(self._type)
        self._say(")")
        if not self._takes("u"):
            self._say(" -> ")
            self._type()
        self._lifetimes = outer

    def _dynamic(self) -> None:
        outer = self._lifetimes
        self._say("dyn ")
        self._binder()
        count = 0
        while not self._takes("E"):
            self._say(" + " if count else "")
            self._trait()
            count += 1
        self._lifetimes = outer
        if not self._takes("L"):
            raise _NotUnderstoodError
        if lifetime := self._number():
            self._say(f" + {self._lifetime(lifetime)}")

    def _trait(self) -> None:
        is_open = self._path(in_type=True, stays_open=True)
        while self._takes("p"):
            self._say(", " if is_open else "<")
            is_open = True
            self._say(f"{self._identifier()} = ")
            self._type()
        self._say(">" if is_open else "")

    def _binder(self) -> None:
        """Lifetimes that hold for what follows; they are referred to by how many binders' lifetimes ago they were."""
        if not (count := self._tagged_number("G")):
            return
        self._lifetimes += count
        if self._lifetimes > _MOST_LIFETIMES:
            raise _NotUnderstoodError
        self._say(f"for<{', '.join(self._lifetime(count - one) for one in range(count))}> ")

    def _lifetime(self, number: int) -> str:
        if number > self._lifetimes:
            raise _NotUnderstoodError
        return f"'{chr(ord('a') + self._lifetimes - number)}" if number else "'_"

    # -- constants -------------------------------------------------------------------------------------------------

    def _constant(self) -> bool:
        self._deeper()
        tag = self._next()
        if tag == "p":
            self._say("_")
        elif tag == "B":
            self._referred(self._constant)
        elif tag in "aslxnihtmyojbc":
            self._say(self._literal(tag))
        else:
            raise _NotUnderstoodError
        self._depth -= 1
        return False

    def _literal(self, tag: str) -> str:
        found = _LITERAL.match(self._text, self._at)
        if not found or (found[1] and tag not in "aslxni"):
            raise _NotUnderstoodError
        self._at = found.end()
        number = int(found[2], 16)
        if tag == "b" and number < 2:
            return ("false", "true")[number]
        if tag == "b":
            raise _NotUnderstoodError
        if tag == "c":
            character = _character(number)
            return "'\\''" if character == "'" else repr(character)
        return f"{'-' if found[1] else ''}{number}"
