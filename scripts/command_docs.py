"""Write each command's `--help` into its page in docs/commands/, between two markers; the rest of a page is by hand.

`--check` writes nothing and ends with status 1 if a page is not current.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pprofpy.cli.main import COMMANDS, pprofpy

PAGES = Path(__file__).parent.parent / "docs" / "commands"
BEGIN, END = "<!-- help: written by 'make docs' -->", "<!-- end of help -->"
WIDTH = 100


def page(name: str, old: str) -> str:
    """A command's page with its help block made current; a new page if `old` is empty."""
    command = pprofpy.get_command(click.Context(pprofpy), name)
    assert command is not None
    context = click.Context(
        command,
        info_name=f"pprofpy {name}",
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    block = f"{BEGIN}\n```text\n{command.get_help(context)}\n```\n{END}"
    if BEGIN not in old:
        return f"# pprofpy {name}\n\n{COMMANDS[name][1]}\n\n{block}\n"
    before, _, rest = old.partition(BEGIN)
    return before + block + rest.partition(END)[2]


def main() -> int:
    """Write or check all pages."""
    os.environ["NO_COLOR"] = "1"
    stale = []
    for name in COMMANDS:
        path = PAGES / f"{name}.md"
        old = path.read_text() if path.exists() else ""
        new = page(name, old)
        if new == old:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(new)
    if "--check" in sys.argv and stale:
        print(f"not current: {', '.join(stale)}; run 'make docs'")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
