"""What walks of Python stacks can miss."""

from __future__ import annotations

from pprofpy.collectors.kernel.losses import python_losses
from pprofpy.collectors.kernel.program import Program

WITHOUT_PYTHON = ("python_unknown_threads", "python_no_function")
"""Threads that run no Python."""

CUT_OFF = "python_truncated"
FAILED = ("python_unreadable", "python_stacks_full", "python_interrupted", "python_threads_beyond")
_MISSED = (
    *WITHOUT_PYTHON,
    "python_unreadable",
    "python_truncated",
    "python_stacks_full",
    "python_names_full",
    "python_interrupted",
    "python_threads_beyond",
    "python_children_full",
    "python_labels_full",
)
"""Why a walk gave no stack, or not all of it; the order of the enum in python.h."""


def missed(program: Program) -> dict[str, int]:
    """How many walks of a program gave no stack, or not all of it, by reason."""
    return python_losses(program, _MISSED)
