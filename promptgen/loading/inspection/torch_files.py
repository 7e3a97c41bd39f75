"""Examine a ``torch.save`` file without torch: its tensors, and whether it is safe to read.

``torch.load(weights_only=True)`` also refuses most unsafe files. But its errors are hard to understand and advise to
read the file unsafely, it trusts the lengths in a compressed archive, and it leaves memory uninitialised where a file
of the old format lacks the numbers of a tensor.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any, NamedTuple

from promptgen.loading.inspection.bounded import BoundedFile, open_zip, read_member
from promptgen.loading.inspection.pickles import HASHING, Outside, Scan, scan
from promptgen.loading.stack_machine import MAX_INTEGER, PickleError, Record, Reference

MAGIC = 0x1950A86A20F9469CFC6C
"""Magic number of the old format."""

ZIP, LEGACY, TORCHSCRIPT = "torch zip", "legacy torch pickle", "TorchScript archive"

STORAGES = {
    **{"DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4), "HalfStorage": ("float16", 2)},
    **{"BFloat16Storage": ("bfloat16", 2), "LongStorage": ("int64", 8), "IntStorage": ("int32", 4)},
    **{"ShortStorage": ("int16", 2), "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1)},
    **{"BoolStorage": ("bool", 1), "ComplexFloatStorage": ("complex64", 8), "ComplexDoubleStorage": ("complex128", 16)},
}
"""Type of the numbers and their size in bytes, by the name of the storage."""

PARAMETER = "torch._utils._rebuild_parameter"
REBUILDERS = frozenset({"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"})
CALLABLE = REBUILDERS | {
    "_codecs.encode",
    "argparse.Namespace",  # trainings save their options as one
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    PARAMETER,
    "torch.device",
}
"""Names that the pickle of a torch file may call; they create only tensors and plain containers."""

NAMEABLE = re.compile(r"torch\.(\w+Storage|float\d+|bfloat16|u?int\d+|bool|complex\d+)")
"""Names that the pickle may use but not call."""

WITH_STATE = frozenset({"argparse.Namespace", "collections.OrderedDict"})
MAX_DIMENSIONS = 8
MAX_DEPTH = 64
MAX_TENSORS = 100_000
MAX_KEY = 256


@dataclass(frozen=True)
class TensorEntry:
    """A tensor as its file describes it.

    Attributes:
        key: dotted path through the file's containers.
        shape: its shape.
        dtype: type of its numbers.
        again: whether an earlier key refers to the same tensor.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    again: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass
class Contents:
    """Content of a file.

    Attributes:
        container: name of the format.
        entries: names at the top level.
        tensors: its tensors.
        scan: effects of its pickle; None without a pickle.
        metadata: metadata of the file.
        faults: reasons for refusing the file, in words; empty if there are none.
        way_out: how to fix the faults.
    """

    container: str
    entries: list[str] = field(default_factory=list)
    tensors: list[TensorEntry] = field(default_factory=list)
    scan: Scan | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    way_out: str = "fetch it again"


class Storage(NamedTuple):
    """The storage behind a tensor, as its pickle describes it."""

    key: str
    dtype: str
    width: int
    numbers: int


def refused_names(content: Scan) -> list[str]:
    """Return the names that the pickle of a torch file uses or calls although it may not."""
    named = [name for name in content.names if name not in CALLABLE and not NAMEABLE.fullmatch(name)]
    return list(dict.fromkeys([*named, *(call.name for call in content.calls if call.name not in CALLABLE)]))


def examine_zip(file: IO[bytes], size: int) -> Contents:
    """Return the content of a torch file in a zip archive of `size` bytes.

    Raises:
        ArchiveError: the archive is damaged.
    """
    contents = Contents(ZIP)
    with open_zip(file) as archive:
        members = archive.infolist()
        sizes = {member.filename: member.file_size for member in members}
        name = next((name for name in sizes if name.endswith("/data.pkl")), "data.pkl")
        prefix = name.removesuffix("data.pkl")
        if f"{prefix}constants.pkl" in sizes:
            fault = "it is a TorchScript archive, which holds programs"
            return Contents(TORCHSCRIPT, faults=[fault], way_out="ask for its state dict")
        packed = [m for m in members if m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1]
        # torch ignores the case of members, and reads the folder of the first one.
        (twice, count), *_ = Counter(member.filename.casefold() for member in members).most_common(1)
        if count > 1:
            contents.faults.append(f"its archive has the member {twice} twice")
        elif any(not member.filename.startswith(prefix) for member in members):
            contents.faults.append(f"its archive has members outside the folder {prefix[:40]}")
        elif packed:
            contents.faults.append(f"its member {packed[0].filename} is compressed or encrypted, unlike torch.save's")
        elif (claimed := sum(sizes.values())) > size:
            contents.faults.append(f"its members claim {claimed} bytes in a file of {size}")
        if contents.faults:
            return contents
        pickled = read_member(archive, name)
    try:
        contents.scan = scan(io.BytesIO(pickled))
    except PickleError as error:
        contents.faults.append(f"its pickle is broken: {error}")
        return contents
    keys = [storage.key for item in contents.scan.outside if (storage := storage_of(item))]
    return _checked(contents, {key: sizes.get(f"{prefix}data/{key}") for key in keys})


def examine_legacy(file: IO[bytes]) -> Contents:
    """Return the content of a file in torch's old format: five pickles, followed by the numbers."""
    contents = Contents(LEGACY)
    bounded = BoundedFile(file)
    try:
        preamble = [scan(bounded) for _ in range(3)]
        content, keys = scan(bounded), scan(bounded)
    except PickleError as error:
        contents.faults.append(f"its pickle is broken: {error}")
        return contents
    contents.scan = content
    if any(part.names for part in (*preamble, keys)) or not isinstance(keys.root, list):
        contents.faults.append("its first pickles are not those of torch.save")
        return contents
    widths = {storage.key: storage.width for item in content.outside if (storage := storage_of(item))}
    sizes: dict[str, int | None] = dict.fromkeys(widths)
    for key in keys.root:
        head = bounded.read(8)
        if not isinstance(key, str) or key not in widths or len(head) < 8:
            break
        length = struct.unpack("<q", head)[0] * widths[key]
        if not 0 <= length <= bounded.size - bounded.tell():
            break
        sizes[key] = length
        bounded.seek(length, io.SEEK_CUR)
    return _checked(contents, sizes)


def _checked(contents: Contents, sizes: dict[str, int | None]) -> Contents:
    """Add the tensors and faults to the content of a file; `sizes` has the bytes in the file for each storage."""
    assert contents.scan is not None
    contents.tensors = list(islice(_tensors(contents.scan.root, "", 0, set()), MAX_TENSORS))
    faults = [_storage_fault(item, sizes) for item in contents.scan.outside]
    faults += [_call_fault(call) for call in contents.scan.calls]
    faults += [_state_fault(target, state) for target, state in contents.scan.states]
    contents.faults += dict.fromkeys(fault for fault in faults if fault)
    return contents


def storage_of(item: Any) -> Storage | None:
    """Return the storage that an object outside the pickle describes; None if it does not describe one."""
    identity = item.identity if isinstance(item, Outside) else None
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[5:] not in ((), (None,)):
        return None
    tag, kind, key, _, count = identity[:5]
    name = kind.name.removeprefix("torch.") if isinstance(kind, Reference) else ""
    if tag != "storage" or name not in STORAGES or not isinstance(key, str) or not is_sane([count]):
        return None
    return Storage(key, *STORAGES[name], count)


def is_sane(numbers: Sequence[Any]) -> bool:
    """Return whether all numbers are counts small enough to compute with at no cost."""
    return len(numbers) <= MAX_DIMENSIONS and all(type(n) is int and 0 <= n < MAX_INTEGER for n in numbers)


def tensor_fault(offset: Any, shape: Any, strides: Any, stored: int) -> str | None:
    """Return why a tensor exceeds its storage of `stored` numbers or uses some of them twice, or None."""
    if not isinstance(shape, tuple | list) or not isinstance(strides, tuple | list) or len(shape) != len(strides):
        return "it has a tensor whose shape and strides do not match"
    if not (is_sane([offset]) and is_sane(shape) and is_sane(strides)):
        return "it has a tensor of an impossible shape"
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count > stored or offset > stored or (count and last >= stored):
        return f"it has a tensor of shape {tuple(shape)} over {stored} stored numbers"
    return None


def _layout(call: Record) -> tuple[Storage, Any, Any, Any] | None:
    """Return storage, offset, shape and strides of the tensor that a call rebuilds; None if there are none."""
    storage = storage_of(call.arguments[0]) if len(call.arguments) >= 4 else None
    if storage is None:
        return None
    _, offset, shape, strides = call.arguments[:4]
    if isinstance(shape, Record) and shape.name == "torch.Size" and shape.arguments:
        shape = shape.arguments[0]
    return storage, offset, shape, strides


def _storage_fault(item: Outside, sizes: dict[str, int | None]) -> str | None:
    storage = storage_of(item)
    if storage is None:
        return "it requests an object that is not a storage of numbers"
    held, claimed = sizes.get(storage.key), storage.numbers * storage.width
    if held is None:
        return f"it has no numbers for the storage {storage.key[:40]}"
    return f"its storage {storage.key[:40]} claims {claimed} bytes, the file has {held}" if held != claimed else None


def _call_fault(call: Record) -> str | None:
    """Return the fault of a call of an allowed function, or None."""
    if call.name in REBUILDERS:
        layout = _layout(call)
        return tensor_fault(*layout[1:], layout[0].numbers) if layout else "it describes a tensor in an unknown way"
    if call.name == "_codecs.encode" and (len(call.arguments) != 2 or call.arguments[1] not in ("latin1", "latin-1")):
        return "it encodes text in another way than torch.save does"
    return None


def _state_fault(target: Any, state: Any) -> str | None:
    """Return the fault of setting the state of an object, or None."""
    name = target.name if isinstance(target, Record) else "a plain container"
    if isinstance(target, Record) and name not in CALLABLE:  # an object of another program, refused or left out
        return None
    if name not in WITH_STATE:
        return f"it sets the state of {name}"
    plain = isinstance(state, dict) and all(isinstance(key, str) and key[:2] != "__" for key in state)
    return None if plain else f"it sets more than the attributes of {name}"


def _tensors(node: Any, key: str, depth: int, seen: set[int]) -> Iterator[TensorEntry]:
    """Yield the tensors inside an object, one for each key; a parameter counts as its tensor."""
    if isinstance(node, Record) and node.name == PARAMETER and node.arguments:
        node = node.arguments[0]
    if isinstance(node, Record) and node.name in REBUILDERS:
        layout = _layout(node)
        if layout and tensor_fault(*layout[1:], layout[0].numbers) is None:
            yield TensorEntry(key, tuple(layout[2]), layout[0].dtype, id(node) in seen)
            seen.add(id(node))
        return
    if not isinstance(node, dict | list | tuple | Record) or id(node) in seen or depth > MAX_DEPTH:
        return
    seen.add(id(node))
    prefix = f"{key}." if key else ""
    if isinstance(node, Record):
        arguments = () if node.name in HASHING else node.arguments  # whose content is among its items
        for part in (*arguments, node.elements, node.items, node.state):
            yield from _tensors(part, key, depth + 1, seen)
        return
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        text = str(name) if isinstance(name, str | int | None) else "?"
        yield from _tensors(value, f"{prefix}{text}"[:MAX_KEY], depth + 1, seen)
