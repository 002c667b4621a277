"""The agent of `heap`: what it loads inside the target cannot be changed below it by the target."""

import os
from pathlib import Path

import pytest

from pprofpy.collectors.heapagent import agent

CONTENT = b"a library, this long"


def test_the_file_that_the_sampler_is_loaded_from_cannot_be_cut_short_any_more() -> None:
    """What is mapped from a file that is cut short ends the process with SIGBUS."""
    paths = agent.paths_of(CONTENT)
    path = next(paths)

    with pytest.raises(PermissionError):
        os.truncate(path, 0)
    with pytest.raises(PermissionError), Path(path).open("r+b", buffering=0) as file:
        file.write(b"x")


def test_a_file_that_was_changed_before_it_was_sealed_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "write", lambda fd, content, at: os.pwrite(fd, content[:-1], at))

    with pytest.raises(ImportError, match="somebody writes"):
        next(agent.paths_of(CONTENT))
