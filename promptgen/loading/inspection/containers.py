"""Recognise file formats by their first bytes, never by file names, and list the content of the simple formats."""

from __future__ import annotations

import json
import math
import struct
import tarfile
from collections.abc import Mapping
from typing import IO, Any

from promptgen.loading.inspection.bounded import ArchiveError, BoundedFile, open_zip, path_fault, zip_member_fault
from promptgen.loading.inspection.pickles import scan
from promptgen.loading.inspection.torch_files import MAGIC, Contents, TensorEntry, examine_legacy, examine_zip, is_sane
from promptgen.loading.stack_machine import PickleError

SAFETENSORS, PLAIN_PICKLE = "safetensors", "plain pickle"
HEAD = 1 << 12
MAX_HEADER = 100 << 20
"""Largest header of a safetensors file, bytes; the limit of the format's own reader."""

JSON = "JSON"
MAX_JSON = 16 << 20
MAX_MEMBERS = 100_000
SHOWN = 5
HTML = (b"<!doctype html", b"<html", b"<?xml", b"<head")
COMPRESSED = ("it is compressed as a whole", "decompress it first")
PICTURE = ("it is a picture", "give a weight file")
OTHER_KINDS = {
    b"version https://git-lfs": ("Git LFS pointer", "it is a pointer to a file", "run `git lfs pull`"),
    b"\x93NUMPY": ("npy array", "it is one array of numpy", "give a weight file"),
    **{b"\x1f\x8b": ("gzip stream", *COMPRESSED), b"BZh": ("bzip2 stream", *COMPRESSED)},
    **{b"\xfd7zXZ\x00": ("xz stream", *COMPRESSED), b"\x28\xb5\x2f\xfd": ("zstd stream", *COMPRESSED)},
    **{b"\x89PNG\r\n\x1a\n": ("PNG image", *PICTURE), b"\xff\xd8\xff": ("JPEG image", *PICTURE)},
    **{b"GIF8": ("GIF image", *PICTURE), b"BM": ("BMP image", *PICTURE), b"RIFF": ("WebP image", *PICTURE)},
    **{b"II*\x00": ("TIFF image", *PICTURE), b"MM\x00*": ("TIFF image", *PICTURE)},
}
"""Files often supplied instead of a weight file: name, fault and remedy, by their first bytes."""

TYPES = {
    **{"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)},
    **{"I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1)},
    **{"BOOL": ("bool", 1), "U16": ("uint16", 2), "U32": ("uint32", 4), "U64": ("uint64", 8)},
    **{"F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "C64": ("complex64", 8)},
}
"""Type of a number and its size in bytes, by its name in safetensors."""


def look_into(file: IO[bytes]) -> Contents:
    """Return the content of an open file; nothing is run or extracted, and claimed lengths are bounded."""
    head = file.read(HEAD)
    size = file.seek(0, 2)
    file.seek(0)
    try:
        return _look(file, head, size)
    except ArchiveError as error:
        return Contents("damaged archive", faults=[str(error)])


def _look(file: IO[bytes], head: bytes, size: int) -> Contents:
    if not head:
        return Contents("empty file", faults=["it is empty"])
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:20].lower().startswith(HTML):
        return Contents("HTML page", faults=["it is a web page"], way_out="fetch the file by its direct link")
    for start, (name, fault, way_out) in OTHER_KINDS.items():
        if head.startswith(start):
            return Contents(name, faults=[fault], way_out=way_out)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(file, size)
    if head[257:262] == b"ustar":
        return _tar(file)
    if is_safetensors(head):
        return _safetensors(file, size)
    if head.lstrip()[:1] in (b"{", b"["):
        return _json(file, size)
    try:
        first = scan(BoundedFile(file))
    except PickleError as error:
        if head[:1] == b"\x80":
            return Contents("pickle", faults=[f"it is broken: {error}"])
        # Pickles of protocols 0 and 1 have no magic number.
        fault, way_out = (
            "its first bytes belong to no known format",
            "fetch it again, or save its tensors as safetensors",
        )
        return Contents("unknown", faults=[fault], way_out=way_out)
    file.seek(0)
    return examine_legacy(file) if first.root == MAGIC else Contents(PLAIN_PICKLE, scan=first)


def _zip(file: IO[bytes], size: int) -> Contents:
    with open_zip(file) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return examine_zip(file, size)
    if names and all(name.endswith(".npy") for name in names):
        return _npz(file)
    faults = [fault for member in members if (fault := zip_member_fault(member))]
    return Contents("zip archive", entries=names, faults=faults[:SHOWN], way_out="do not extract it")


def _tar(file: IO[bytes]) -> Contents:
    """Return the members of a tar archive, from their headers alone."""
    contents = Contents("tar archive", way_out="do not extract it")
    try:
        with tarfile.open(fileobj=BoundedFile(file, 1 << 20), mode="r:") as archive:
            for member in archive:
                contents.entries.append(member.name)
                if (fault := path_fault(member.name)) is not None:
                    contents.faults.append(fault)
                elif not (member.isreg() or member.isdir()):
                    kind = "a link" if member.issym() or member.islnk() else "a device"
                    contents.faults.append(f"its member {member.name!r} is {kind}")
                if len(contents.entries) >= MAX_MEMBERS:
                    contents.faults.append(f"it has more than {MAX_MEMBERS} members")
                    break
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError, LookupError) as error:
        raise ArchiveError(f"it is a damaged tar archive ({error})") from error
    if {"storages", "tensors", "pickle"} <= set(contents.entries):
        contents.container = "tar archive of an early torch"
        contents.faults.append("its format is too old to be supported")
    contents.faults = contents.faults[:SHOWN]
    return contents


def is_safetensors(head: bytes) -> bool:
    """Return whether a file begins like a safetensors file, with the length of a header and the header.

    The length may begin with the byte of a bracket, but has zeros, which JSON never has.
    """
    return head[8:9] == b"{" and (b"\0" in head[:8] or head[:1] not in (b"{", b"["))


def _safetensors(file: IO[bytes], size: int) -> Contents:
    """Return the tensors in the header of a safetensors file; their byte ranges must fill the file exactly."""
    contents = Contents(SAFETENSORS)
    length = struct.unpack("<Q", file.read(8))[0]
    if length > min(size - 8, MAX_HEADER):
        contents.faults.append(f"its header claims {length} bytes in a file of {size}")
        return contents
    try:
        header = json.loads(file.read(length), object_pairs_hook=_unique_keys)
        contents.metadata = {str(key): str(value) for key, value in dict(header.pop("__metadata__", {})).items()}
        ranges = sorted((_add_entry(contents, key, entry), key) for key, entry in header.items())
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        contents.faults.append(f"its header is damaged ({error})")
        return contents
    end = 0
    for (start, stop), key in ranges:
        if start != end:
            what = "overlap those before" if start < end else f"leave a gap of {start - end} bytes"
            contents.faults.append(f"the numbers of {key} {what}")
        end = max(end, stop)
    if end != size - 8 - length:
        contents.faults.append(f"its tensors claim {end} bytes, the file has {size - 8 - length}")
    return contents


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("it has a key twice")
    return content


def _add_entry(contents: Contents, key: str, entry: Mapping[str, Any]) -> tuple[int, int]:
    """Add a tensor of a safetensors file to `contents`; return the byte range that it claims."""
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not (is_sane(shape) and is_sane([start, end])):
        raise ValueError(f"{key} has an impossible shape")
    dtype, width = TYPES.get(entry["dtype"], (str(entry["dtype"]), 0))
    contents.tensors.append(TensorEntry(key, shape, dtype))
    if not width:
        contents.faults.append(f"{key} has numbers of the unknown type {dtype}")
    elif start > end or math.prod(shape) * width != end - start:
        contents.faults.append(f"{key} claims shape {shape} over bytes {start} to {end}")
    return start, end


def _npz(file: IO[bytes]) -> Contents:
    """Return the arrays of an npz file, from their headers alone."""
    from numpy.lib import format as npy

    contents = Contents("npz arrays", way_out="save its arrays as numbers")
    with open_zip(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                version = npy.read_magic(stream)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(stream, max_header_size=10_000)
            if not is_sane(shape):
                raise ArchiveError(f"its array {member.filename} has an impossible shape")
            contents.tensors.append(TensorEntry(member.filename.removesuffix(".npy"), shape, str(dtype)))
            if dtype.hasobject:
                contents.faults.append(f"its array {member.filename} is a pickle of objects")
    return contents


def _json(file: IO[bytes], size: int) -> Contents:
    if size > MAX_JSON:
        return Contents(JSON, faults=[f"it is JSON of more than {MAX_JSON >> 20} MB"])
    try:
        content = json.loads(file.read(size))
    except (ValueError, RecursionError) as error:
        return Contents("unknown", faults=[f"it begins like JSON but is not valid JSON ({error})"])
    return Contents(JSON, entries=list(map(str, content)) if isinstance(content, dict) else [])
