"""Kinds of files, told by their first bytes and never by their names; and what lies in the simple ones."""

from __future__ import annotations

import json
import math
import struct
import tarfile
from dataclasses import dataclass, field
from typing import IO, Any

from promptgen.loading.inspection.bounded import ArchiveError, BoundedFile, open_zip
from promptgen.loading.inspection.members import tar_member_fault, zip_member_fault
from promptgen.loading.inspection.pickles import scan
from promptgen.loading.inspection.records import Scan
from promptgen.loading.inspection.tensors import TensorEntry, is_sane
from promptgen.loading.inspection.torch_files import MAGIC, examine_legacy, examine_zip
from promptgen.loading.stack_machine import PickleError

HEAD = 1 << 12
MAX_HEADER = 100 << 20
"""Bytes of the header of a safetensors file, as the format's own reader allows."""

MAX_JSON = 16 << 20
MAX_MEMBERS = 100_000
IMAGES = {
    **{b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP"},
    **{b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"RIFF": "WebP"},
}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
WIDTHS = {
    **{"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)},
    **{"I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1)},
    **{"BOOL": ("bool", 1), "U16": ("uint16", 2), "U32": ("uint32", 4), "U64": ("uint64", 8)},
    **{"F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "C64": ("complex64", 8)},
}
"""Type and bytes of a number, by its name in safetensors."""


@dataclass
class Contents:
    """What lies in a file.

    Attributes:
        container: name of the format.
        entries: what lies at its top level.
        tensors: its tensors.
        scan: what its pickle would do, where there is one.
        metadata: text that the file has about itself.
        faults: why it is not read, in words; none if it is.
        way_out: what to do about that.
    """

    container: str
    entries: list[str] = field(default_factory=list)
    tensors: list[TensorEntry] = field(default_factory=list)
    scan: Scan | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    way_out: str = ""


def look_into(file: IO[bytes]) -> Contents:
    """Return what lies in an open file; nothing in it is run, extracted, or believed without a bound."""
    head = file.read(HEAD)
    size = file.seek(0, 2)
    file.seek(0)
    try:
        return _look(file, head, size)
    except ArchiveError as error:
        return Contents("damaged archive", faults=[str(error)], way_out="fetch it again")


def _look(file: IO[bytes], head: bytes, size: int) -> Contents:
    if not head:
        return Contents("empty file", faults=["it is empty"], way_out="fetch it again")
    if (other := _other_kind(head)) is not None:
        return other
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(file, size)
    if head[257:262] == b"ustar":
        return _tar(file)
    if _is_safetensors(head):
        return _safetensors(file, size)
    if head.lstrip()[:1] in (b"{", b"["):
        return _json(file, size)
    found = _pickle(file, size)
    if found.scan is None and head[:1] != b"\x80":  # the first protocols begin with no mark of their own
        fault = "its first bytes belong to no known format"
        return Contents("unknown", faults=[fault], way_out="fetch it again, or save its tensors as safetensors")
    return found


def _other_kind(head: bytes) -> Contents | None:
    """Return what a file is that comes in place of a weight file, and holds nothing to look at."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return Contents("HTML page", faults=["it is a web page"], way_out="fetch the file by its direct link")
    if head.startswith(b"version https://git-lfs"):
        return Contents("Git LFS pointer", faults=["it is a pointer to a file"], way_out="run `git lfs pull`")
    for start, name in COMPRESSED.items():
        if head.startswith(start):
            return Contents(f"{name} stream", faults=["it is compressed as a whole"], way_out="decompress it first")
    for start, name in IMAGES.items():
        if head.startswith(start):
            return Contents(f"{name} image", faults=["it is a picture"], way_out="give a weight file")
    if head.startswith(b"\x93NUMPY"):
        return Contents("npy array", faults=["it is one array of numpy"], way_out="give a weight file")
    return None


def _zip(file: IO[bytes], size: int) -> Contents:
    with open_zip(file) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        torch_file = examine_zip(file, size)
        found = Contents(torch_file.container, [], torch_file.tensors, torch_file.scan, faults=torch_file.faults)
        if torch_file.scan is None:
            found.way_out = "ask for its state dict" if "TorchScript" in torch_file.container else "fetch it again"
        return found
    if names and all(name.endswith(".npy") for name in names):
        return _npz(file)
    found = Contents("zip archive", entries=names, faults=[f for m in members if (f := zip_member_fault(m))][:5])
    found.way_out = "do not extract it" if found.faults else ""
    return found


def _tar(file: IO[bytes]) -> Contents:
    """Return the members of a tar archive, by their headers alone."""
    found = Contents("tar archive")
    try:
        with tarfile.open(fileobj=BoundedFile(file, 1 << 20), mode="r:") as archive:
            for member in archive:
                found.entries.append(member.name)
                found.faults += [fault] if (fault := tar_member_fault(member)) else []
                if len(found.entries) >= MAX_MEMBERS:
                    found.faults.append(f"it has more than {MAX_MEMBERS} members")
                    break
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError, LookupError) as error:
        raise ArchiveError(f"it is a damaged tar archive ({error})") from error
    if {"storages", "tensors", "pickle"} <= set(found.entries):
        found.container = "tar archive of an early torch"
        found.faults.append("its format is older than any that is read")
    found.faults = found.faults[:5]
    found.way_out = "do not extract it" if found.faults else ""
    return found


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and head[:1] not in (b"{", b"[")


def _safetensors(file: IO[bytes], size: int) -> Contents:
    """Return the tensors that the header of a safetensors file names."""
    found = Contents("safetensors", way_out="fetch it again")
    length = struct.unpack("<Q", file.read(8))[0]
    if length > min(size - 8, MAX_HEADER):
        found.faults.append(f"its header claims {length} bytes in a file of {size}")
        return found
    try:
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        found.metadata = {str(key): str(value) for key, value in dict(metadata).items()}
        for key, entry in header.items():
            _add_entry(found, key, entry, size - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        found.faults.append(f"its header is damaged ({error})")
    return found


def _add_entry(found: Contents, key: str, entry: Any, size: int) -> None:
    """Add a tensor of a safetensors file whose numbers take `size` bytes in all."""
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not (is_sane(shape) and is_sane([start, end])):
        raise ValueError(f"{key} has an impossible shape")
    dtype, width = WIDTHS.get(entry["dtype"], (str(entry["dtype"]), 0))
    found.tensors.append(TensorEntry(key, shape, dtype))
    whole = not width or math.prod(shape) * width == end - start
    if min(shape, default=0) < 0 or not 0 <= start <= end <= size or not whole:
        found.faults.append(f"{key} claims shape {shape} over bytes {start} to {end} of {size}")


def _npz(file: IO[bytes]) -> Contents:
    """Return the arrays of an npz file, by their headers alone."""
    from numpy.lib import format as npy

    found = Contents("npz arrays")
    with open_zip(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                version = npy.read_magic(stream)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(stream, max_header_size=10_000)
            if not is_sane(shape):
                raise ArchiveError(f"its array {member.filename} has an impossible shape")
            found.tensors.append(TensorEntry(member.filename.removesuffix(".npy"), shape, str(dtype)))
            if dtype.hasobject:
                found.faults.append(f"its array {member.filename} is a pickle of objects")
    found.way_out = "save its arrays as numbers" if found.faults else ""
    return found


def _pickle(file: IO[bytes], size: int) -> Contents:
    """Return what lies in a pickle outside a zip: a torch file of the old format, or a plain one."""
    bounded = BoundedFile(file)
    try:
        first = scan(bounded)
    except PickleError as error:
        return Contents("pickle", faults=[f"it is broken: {error}"], way_out="fetch it again")
    if first.root == MAGIC:
        file.seek(0)
        old = examine_legacy(file, size)
        return Contents(old.container, tensors=old.tensors, scan=old.scan, faults=old.faults)
    return Contents("plain pickle", scan=first)


def _json(file: IO[bytes], size: int) -> Contents:
    found = Contents("JSON")
    try:
        content = json.loads(file.read(MAX_JSON + 1)) if size <= MAX_JSON else None
    except (ValueError, RecursionError) as error:
        return Contents("unknown", faults=[f"it begins like JSON, and is not ({error})"], way_out="fetch it again")
    if content is None:
        found.faults.append(f"it is JSON of more than {MAX_JSON >> 20} MB")
    found.entries = list(map(str, content)) if isinstance(content, dict) else []
    return found
