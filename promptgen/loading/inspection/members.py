"""Which members of an archive must not be extracted: those that would lie elsewhere, or be more than they seem."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import PurePosixPath, PureWindowsPath

MAX_RATIO = 200
"""Times that a member may be larger than it is when compressed."""

LINK = 0o12
"""Kind of a symbolic link, in the mode that a Unix archive gives a member."""


def zip_member_fault(member: zipfile.ZipInfo) -> str | None:
    """Return why a member of a zip archive must not be extracted, or None."""
    if (fault := path_fault(member.filename)) is not None:
        return fault
    if member.external_attr >> 28 == LINK:
        return f"its member {member.filename!r} is a link"
    if member.file_size > MAX_RATIO * max(member.compress_size, 1 << 10):
        return f"its member {member.filename!r} claims {member.file_size} bytes out of {member.compress_size}"
    return None


def path_fault(name: str) -> str | None:
    """Return why a file of this name must not be extracted, or None: it would lie outside the folder."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root:
        return f"its member {name!r} has an absolute path"
    if ".." in posix.parts or ".." in windows.parts:
        return f"its member {name!r} leads out of its folder"
    return None


def tar_member_fault(member: tarfile.TarInfo) -> str | None:
    """Return why a member of a tar archive must not be extracted, or None."""
    if (fault := path_fault(member.name)) is not None:
        return fault
    if not (member.isreg() or member.isdir()):
        kind = "a link" if member.issym() or member.islnk() else "a device"
        return f"its member {member.name!r} is {kind}"
    return None
