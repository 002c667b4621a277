"""Source within archives that Python imports from: `/srv/app.pyz/shop/cart.py`."""

from __future__ import annotations

import io
import re
import zipfile

from pprofpy.formats.source_text import LARGEST_BYTES

LARGEST_ARCHIVE_BYTES, _MOST_MEMBERS = 64 << 20, 65_536
"""A larger one is not searched for source. A million members would take 0.5 GB and 5 s."""
_MEMBER = b"PK\1\2"
"""So begins what the directory at its end says of a member."""
_ARCHIVE = re.compile(r"(?P<archive>/.*?\.(?:zip|egg|whl|pyz|pex))/(?P<member>.+)")


def split(path: str) -> tuple[str, str] | None:
    """The archive and its member that a path may mean; None if it can only be a file."""
    match = _ARCHIVE.fullmatch(path)
    return (match["archive"], match["member"]) if match else None


def member(archive: bytes, name: str) -> bytes:
    """The content of a member, packed in one of the two ways that Python imports from.

    Raises:
        OSError: It has none of that name, or it is larger than any source file, or damaged.
    """
    if archive.count(_MEMBER) > _MOST_MEMBERS:
        raise OSError("more members than any program has")
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            about = opened.getinfo(name)
            if about.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise OSError("packed in a way that Python does not import from")
            with opened.open(about) as stream:
                content = stream.read(LARGEST_BYTES + 1)
    except Exception as error:  # what is raised of a damaged one is not told
        raise OSError(f"no such member: {error}") from error
    if len(content) > LARGEST_BYTES:
        raise OSError("larger than any source file")
    return content
