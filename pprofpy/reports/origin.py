"""Whose code it is: the user's own, an installed package's, the standard library's."""

from __future__ import annotations

import re

from pprofpy.model.profile import Frame

STANDARD_LIBRARY = re.compile(r"^<frozen |/lib(?:64)?/(?:python|pypy)\d+\.\d+t?/|/python\d+\.?\d*\.zip/")
INSTALLED = re.compile(r"/(?:site|dist)-packages/")
SOURCE = re.compile(r"\.(?:py|pyw|pyx|go)$|^<")


def is_own(frame: Frame) -> bool:
    """Is it a function of the user's?"""
    filename = frame.function.filename
    return bool(SOURCE.search(filename)) and not (INSTALLED.search(filename) or STANDARD_LIBRARY.search(filename))
