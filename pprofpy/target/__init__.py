"""Which process to profile, and what it is. Nothing in here trusts what a process shows of itself."""

from __future__ import annotations

from pprofpy.target.choice import all_by_name, all_in, find_by_name, python_processes, several, summary, the_only_one
from pprofpy.target.control_group import ControlGroup, find_container, find_control_group
from pprofpy.target.group import Group, Membership, Watched
from pprofpy.target.interpreter import Interpreter, mapped_interpreters
from pprofpy.target.permission import (
    CAP_SYS_PTRACE,
    has_capability,
    permission_error,
    user_namespace_error,
    with_sudo,
)
from pprofpy.target.process import Target, Thread, descendants_of, open_target
from pprofpy.target.procfs import PROC

__all__ = [
    "CAP_SYS_PTRACE",
    "PROC",
    "ControlGroup",
    "Group",
    "Interpreter",
    "Membership",
    "Target",
    "Thread",
    "Watched",
    "all_by_name",
    "all_in",
    "descendants_of",
    "find_by_name",
    "find_container",
    "find_control_group",
    "has_capability",
    "mapped_interpreters",
    "open_target",
    "permission_error",
    "python_processes",
    "several",
    "summary",
    "the_only_one",
    "user_namespace_error",
    "with_sudo",
]
