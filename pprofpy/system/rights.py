"""Opening files with another user's rights: root reads and writes for somebody what that one could, and no more.

The kernel checks access to files by `fsuid`, `fsgid` and the groups of a thread. A thread of root's that sets its fsuid
to another user's also loses the capabilities that override permissions, and has them back with its own fsuid
(capabilities(7), "Effect of user ID changes on capabilities").
"""

from __future__ import annotations

import ctypes
import os
import pwd
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache

from pprofpy.arch import system_call_number
from pprofpy.errors import NotPossibleError

NOBODY = 65534
_ASK = -1  # no id: setfsuid(2) changes nothing, and returns the one in effect

_UID = re.compile(r"[0-9]{1,10}")
_remembered: dict[int, pwd.struct_passwd] = {}
_MOST_USERS = 64

_libc = ctypes.CDLL(None, use_errno=True)


def caller() -> pwd.struct_passwd | None:
    """The user who called sudo; None if we are not root, were not called so, or the system knows no such user.

    The environment gives the number alone: names and folders are those of the system's list of users.
    """
    said = os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not _UID.fullmatch(said):
        return None
    with suppress(KeyError, OverflowError):
        uid = int(said)
        return _remembered[uid] if uid in _remembered else pwd.getpwuid(uid)
    return None


def remember_owner() -> None:
    """Ask once who the owner is: the answer may come from a server (LDAP), which a sandboxed process cannot reach."""
    if user := caller():
        _remembered[user.pw_uid] = user
        _groups_of(user.pw_uid)


def owner() -> int:
    """The user to whom files that pprofpy writes belong: who called sudo, else ourselves."""
    user = caller()
    return user.pw_uid if user else os.geteuid()


def acting_user() -> int:
    """The user with whose rights this thread opens and makes files."""
    return int(_libc.setfsuid(_ASK))


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """While this lasts, this thread opens files as a user would. Nothing changes unless we are root.

    Raises:
        OSError: It cannot be done here.
    """
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    own_groups, (gid, groups) = os.getgroups(), _groups_of(uid)
    try:
        _set_groups(groups)
        _libc.setfsgid(gid)
        _libc.setfsuid(uid)
        if (_libc.setfsuid(_ASK), _libc.setfsgid(_ASK)) != (uid, gid):
            raise PermissionError(f"cannot act as user {uid}")
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(os.getegid())
        _set_groups(own_groups)


@lru_cache(_MOST_USERS)
def _groups_of(uid: int) -> tuple[int, list[int]]:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return NOBODY, []
    return user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)


def _set_groups(groups: Sequence[int]) -> None:
    """For this thread only; the C library's function changes all of them."""
    try:
        number = system_call_number("setgroups")
    except NotPossibleError as error:
        raise PermissionError(error.message) from error
    if _libc.syscall(number, len(groups), (ctypes.c_uint32 * len(groups))(*groups)):
        raise PermissionError("cannot change this thread's groups")
