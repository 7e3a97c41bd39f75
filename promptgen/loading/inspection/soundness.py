"""Check that a fetched file is complete, before its checksum is recorded as the right one."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from promptgen.errors import ModelFileError
from promptgen.loading.inspection.bounded import visible
from promptgen.loading.inspection.containers import JSON, look_into


def require_sound(path: Path, source: str) -> None:
    """Check that a file has a known format and is not cut off or damaged, as far as the file itself can tell.

    In a format without checksums, such as safetensors, changed numbers go unnoticed. The file is not run, and need not
    be safe to load: the loaders decide that.

    Args:
        path: the file.
        source: where it comes from, for the error.

    Raises:
        ModelFileError: the file is damaged, or not a weight file.
    """
    with path.open("rb") as file:
        contents = look_into(file)
    answer = contents.container == JSON and path.suffix != ".json"  # of a server that has no file to give
    fault = "; ".join(contents.faults) or ("it is JSON" if answer else _wrong_checksum(path))
    if fault:
        raise ModelFileError(f"{source}: expected a complete weight file, but {visible(fault)}; nothing was recorded")


def _wrong_checksum(path: Path) -> str:
    """Return what is wrong with the members of a zip archive; empty if nothing is, or for another format."""
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        return f"it is a damaged archive ({error})"
    return f"its member {member} is damaged" if member else ""
