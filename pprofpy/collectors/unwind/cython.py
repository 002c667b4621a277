"""Names of functions that Cython has made, as they are called in their source.

Source: Cython/Compiler/Naming.py (prefixes) and Symtab.py (`mangle`): each scope is its length and its name, with an
underscore behind it; functions that Python can call have a number before their name, even ones for what they do (`pf`)
and odd ones for what unpacks their arguments (`pw`), but for the first one's.
"""

from __future__ import annotations

import re

_MANGLED = re.compile(r"(?:__pyx_fuse_\w{1,40}?)?__pyx_(pf|pw|gb|f)_(\w{1,1000})", re.ASCII)
_SCOPE = re.compile(r"([1-9]\d{0,2})(?=\D)")
_UTILITY = "__Pyx_"
_WRAPPER = "__pyx_pw_"
_DOT = "_dot_"


def cython_name(symbol: str) -> str:
    """What a symbol of Cython's means: `__pyx_pf_4shop_4Cart_2total` is `shop.Cart.total`; empty if it is none."""
    found = _MANGLED.fullmatch(symbol)
    if not found:
        return ""
    kind, rest = found.groups()
    scopes: list[str] = []
    while scope := _scope(rest, kind, is_first=not scopes):
        name, rest = scope
        scopes.append(name)
    name = rest.lstrip("0123456789") if kind != "f" else rest
    return ".".join((*scopes, name)) if scopes and name else ""


def is_glue(symbol: str) -> bool:
    """Does a function of Cython's only call another one?"""
    return symbol.startswith((_UTILITY, _WRAPPER))


def _scope(text: str, kind: str, *, is_first: bool) -> tuple[str, str] | None:
    """A scope and what comes behind it; None if the text is that of a function.

    `4tree_fit` may be `fit`, the first function of `tree`, or `tree_fit`, which has the number 4.
    """
    number = _SCOPE.match(text)
    if not number:
        return None
    length, body = int(number[1]), text[number.end() :]
    name, rest = body[:length], body[length:]
    if not rest.startswith("_"):
        name, rest = _dotted(body, length)
    if not rest.startswith("_") or len(rest) < 2:
        return None
    rest = rest[1:]
    is_number = kind in ("pf", "pw") and length % 2 == (kind == "pw") and not rest[0].isdigit()
    if is_number and not is_first and not name[0].isupper():
        return None
    return name, rest


def _dotted(body: str, length: int) -> tuple[str, str]:
    """A name of so many characters, of which points are written as a word."""
    name = ""
    while len(name) < length and body:
        size = len(_DOT) if body.startswith(_DOT) else 1
        name += "." if size > 1 else body[0]
        body = body[size:]
    return name, body
