"""pprofpy: profile and trace running Python processes on Linux. See `library` for what can be called."""

# Nothing is imported here: `python -m pprofpy` runs this file before it can take care of Ctrl-C.
TYPE_CHECKING = False  # as type checkers know it
if TYPE_CHECKING:
    from typing import Any

    from pprofpy.library import *  # noqa: F403 - what is in its __all__, the one list of names

__version__ = "0.1.0"


def __getattr__(name: str) -> "Any":
    """Load the library when it is first used: `import pprofpy` alone costs nothing."""
    if name.startswith("_") and name != "__all__":  # what Python itself asks modules for
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pprofpy.library as library  # not `from pprofpy`, which asks this function first

    if name != "__all__" and name not in library.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(library, name)


def __dir__() -> "list[str]":
    """What can be called, too."""
    import pprofpy.library as library

    return sorted({*globals(), *library.__all__})
