"""What a shell offers at TAB: pids, recordings, functions. Nothing is offered that a shell would not take as it stands.

Names come from targets and files, and shells insert them into the command line as they are: a function that is called
`$(reboot)` must not get there.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from pprofpy.errors import PprofpyError

if TYPE_CHECKING:  # commands are started far more often than completed
    import click
    from click.shell_completion import CompletionItem

_PLAIN = re.compile(r"[\w.:@%+/-]+", re.ASCII)
_MOST = 200


def pids(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the pids of Python processes that we may look into, each with its command line."""
    from click.shell_completion import CompletionItem

    from pprofpy import target as targets
    from pprofpy.cli import confinement

    confinement.before_recording()
    found = []
    with suppress(PprofpyError, OSError):
        for process in targets.python_processes():
            if str(process.pid).startswith(incomplete):
                found.append(CompletionItem(str(process.pid), help=targets.summary(process)))
    return found


def containers(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the ids of the containers whose processes we see."""
    from click.shell_completion import CompletionItem

    from pprofpy.target.control_group import container_ids

    return [CompletionItem(one[:12]) for one in container_ids() if one.startswith(incomplete)][:_MOST]


def folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell offer folders."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def recordings(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the recordings in the profile folder, newest first, and files."""
    from click.shell_completion import CompletionItem

    from pprofpy.cli import confinement
    from pprofpy.formats import folder
    from pprofpy.formats.files import profile_folder

    confinement.before_reading()
    found = []
    with suppress(PprofpyError, OSError):
        for entry in folder.recordings()[:_MOST]:
            path = str(profile_folder() / entry.path.name)
            if _PLAIN.fullmatch(path) and (path.startswith(incomplete) or entry.path.name.startswith(incomplete)):
                found.append(CompletionItem(path, help=entry.summary.kind))
    return [*found, CompletionItem(incomplete, type="file")]


def functions(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the functions of the profiles on the command line, or else of the latest recording, by what they cost."""
    from click.shell_completion import CompletionItem

    from pprofpy.cli import confinement
    from pprofpy.formats.files import latest_recording, read_profile
    from pprofpy.model.graph import build_graph

    confinement.before_reading()
    names: dict[str, None] = {}
    with suppress(PprofpyError, OSError):
        for path in context.params.get("profiles") or (str(latest_recording()),):
            profile = read_profile(path)
            graph = build_graph(profile, profile.value_index())
            names |= dict.fromkeys(graph.entities[index].name for index in graph.order(by_cum=True))
    offered = [name for name in names if name.startswith(incomplete) and _PLAIN.fullmatch(name)]
    return [CompletionItem(name) for name in offered[:_MOST]]
