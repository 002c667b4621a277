"""What runs in a child process: its result and our errors come back, a crash is an error of ours."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

from pprofpy.collectors.kernel.apart import in_child
from pprofpy.errors import NotPossibleError, PprofpyError
from pprofpy.target import descendants_of


def test_the_result_comes_from_another_process() -> None:
    assert in_child(lambda: f"{os.getpid()} ü" + "x" * 100_000).split()[0] != str(os.getpid())


def test_an_error_of_ours_comes_back_as_it_was() -> None:
    def fail() -> str:
        raise NotPossibleError("bcc is not installed", "install it")

    with pytest.raises(NotPossibleError) as caught:
        in_child(fail)
    assert (caught.value.message, caught.value.hint) == ("bcc is not installed", "install it")


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_a_want_of_memory(number: signal.Signals) -> None:
    def crash() -> str:
        os.kill(os.getpid(), number)
        return ""

    with pytest.raises(PprofpyError, match="memory"):
        in_child(crash)


def test_no_descriptor_and_no_child_is_left() -> None:
    before = _held()
    in_child(lambda: "")

    assert _held() == before


def _held() -> tuple[dict[str, str], set[int]]:
    """Our descriptors and children; those of earlier tests are among them."""
    gc.collect()
    names = {one.name: str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()}
    return names, set(descendants_of(os.getpid()))
