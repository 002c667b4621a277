"""Golden files: what a report looks like, kept in tests/golden under the name of the command that prints it.

After a wanted change, run the tests once with PPROFPY_UPDATE_GOLDEN=1 and read the difference before committing it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

GOLDEN = Path(__file__).parent / "golden"

Render = Callable[[Console], None]


def piped(render: Render) -> str:
    """What a pipe or a file gets."""
    return _printed(render, terminal=False, width=80)


def on_terminal(render: Render, width: int = 80) -> str:
    """What a terminal with colours gets, escape sequences included."""
    return _printed(render, terminal=True, width=width)


def assert_looks(text: str, name: str) -> None:
    """Compare with the golden file `name`."""
    path = GOLDEN / name
    if os.environ.get("PPROFPY_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def _printed(render: Render, *, terminal: bool, width: int) -> str:
    stream = io.StringIO()
    environment = {"TERM": "xterm-256color"} if terminal else {}
    render(
        Console(
            file=stream, force_terminal=terminal, color_system="standard" if terminal else None,
            width=width, height=25, legacy_windows=False, _environ=environment,
        )
    )  # fmt: skip
    return stream.getvalue()
