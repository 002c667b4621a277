"""From what `pthread_self()` says of a thread to its thread pointer.

glibc's record of a thread (struct pthread) lies right before what the thread pointer points to, and it grows from
version to version. So the distance is not known but proved, for each process: the thread pointer points to a list of
where the thread-local variables of each library are (dtv), and those of the first libraries come right behind it.

musl puts its record there, too, but its list proves nothing in programs without thread-local variables: it is refused.

Source: glibc's sysdeps/aarch64/nptl/tls.h (TLS_DTV_AT_TP), nptl/descr.h, sysdeps/generic/dl-dtv.h, elf/dl-tls.c; what
its libc.so.6 says for debuggers (_thread_db_pthread_tid, _thread_db_sizeof_pthread).
"""

from __future__ import annotations

import struct

from pprofpy.arch.machine import Read

_TID_AT = 208
"""In struct pthread, after 24 words and a list's two: the thread's number in its pid namespace. 0: it has ended."""

_SMALLEST, _LARGEST = 0x320, 0x1000
"""So large may the structure be. It had 0x6f0 bytes in glibc 2.17, and has 0x740 or more since 2.35."""

_ALIGNMENT = 16
_PAGE = 4096
_HEAD_OF_THREAD = 16
"""What thread pointers point to: the address of the list, and a word that is not used (tcbhead_t)."""

_ENTRY = struct.Struct("<QQ")
_MOST_LIBRARIES, _LOOKED_AT = 1 << 20, 16
_NEAR_BYTES = 1 << 20
"""What is reserved for thread-local variables when a thread begins is far less."""


def thread_pointer_of(ident: int, read: Read) -> int | None:
    """The thread pointer of a thread.

    Args:
        ident: What `pthread_self()` returns in it.
        read: Reads its process's memory.

    Returns:
        None if that is no thread, or if its C library is not glibc.
    """
    if ident <= 0 or ident % _ALIGNMENT:
        return None
    record = _beginning(ident, read)
    if len(record) < _SMALLEST or struct.unpack_from("<i", record, _TID_AT)[0] <= 0:
        return None
    for distance in range(_SMALLEST, len(record) - 7, _ALIGNMENT):
        (list_at,) = struct.unpack_from("<Q", record, distance)
        if _is_list(list_at, ident + distance + _HEAD_OF_THREAD, read):
            return ident + distance
    return None


def _beginning(address: int, read: Read) -> bytes:
    """What is there, up to _LARGEST: behind the end of a stack, where its thread's record lies, may be nothing."""
    to_page_end = -address % _PAGE
    content = read(address, to_page_end) if to_page_end else b""
    if len(content) == to_page_end and (more := read(address + to_page_end, _LARGEST - to_page_end)):
        content += more
    return content


def _is_list(address: int, variables: int, read: Read) -> bool:
    """Is it a thread's list of where its variables are? Those of a library, at least, lie from `variables` on.

    Before it stands how many entries it has, and in its first one a counter.
    """
    if address % 8 or address < _PAGE:
        return False
    head = read(address - _ENTRY.size, 2 * _ENTRY.size)
    if not head:
        return False
    (count, _), (generation, _) = _ENTRY.iter_unpack(head)
    if not 0 < count < _MOST_LIBRARIES or generation >= _MOST_LIBRARIES:
        return False
    entries = read(address + _ENTRY.size, min(count, _LOOKED_AT) * _ENTRY.size)
    return any(0 <= place - variables < _NEAR_BYTES for place, _ in _ENTRY.iter_unpack(entries))
