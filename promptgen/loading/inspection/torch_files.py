"""What a file of ``torch.save`` holds, and whether reading it is safe; found without torch.

``torch.load(weights_only=True)`` refuses most of what is looked for here too. But it cannot say why in words that help,
advises to read the file unsafely, believes the lengths in a compressed archive, and uses memory as it finds it where a
file of the old format leaves a tensor without numbers.
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
"""What the old format begins with."""

ZIP, LEGACY, TORCHSCRIPT = "torch zip", "legacy torch pickle", "TorchScript archive"

STORAGES = {
    **{"DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4), "HalfStorage": ("float16", 2)},
    **{"BFloat16Storage": ("bfloat16", 2), "LongStorage": ("int64", 8), "IntStorage": ("int32", 4)},
    **{"ShortStorage": ("int16", 2), "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1)},
    **{"BoolStorage": ("bool", 1), "ComplexFloatStorage": ("complex64", 8), "ComplexDoubleStorage": ("complex128", 16)},
}
"""Type and bytes of the numbers, by the name of their storage."""

PARAMETER = "torch._utils._rebuild_parameter"
REBUILDERS = frozenset({"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"})
CALLABLE = REBUILDERS | {
    "_codecs.encode",
    "argparse.Namespace",  # trainings save their options
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    PARAMETER,
    "torch.device",
}
"""What the pickle of a torch file may call: it makes tensors and plain containers, and nothing else."""

NAMEABLE = re.compile(r"torch\.(\w+Storage|float\d+|bfloat16|u?int\d+|bool|complex\d+)")
"""What it may name without calling it."""

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
        again: whether a key before has already named the same tensor.
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
    """What lies in a file.

    Attributes:
        container: name of the format.
        entries: names at its top level.
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
    way_out: str = "fetch it again"


class Storage(NamedTuple):
    """The numbers that a tensor shows, as its pickle describes them."""

    key: str
    dtype: str
    width: int
    numbers: int


def refused_names(content: Scan) -> list[str]:
    """Return the functions and classes that the pickle of a torch file may not name, or not call."""
    named = [name for name in content.names if name not in CALLABLE and not NAMEABLE.fullmatch(name)]
    return list(dict.fromkeys([*named, *(call.name for call in content.calls if call.name not in CALLABLE)]))


def examine_zip(file: IO[bytes], size: int) -> Contents:
    """Return what a torch file in a zip archive of `size` bytes holds.

    Raises:
        ArchiveError: the archive is damaged.
    """
    found = Contents(ZIP)
    with open_zip(file) as archive:
        members = archive.infolist()
        sizes = {member.filename: member.file_size for member in members}
        name = next((name for name in sizes if name.endswith("/data.pkl")), "data.pkl")
        prefix = name.removesuffix("data.pkl")
        if f"{prefix}constants.pkl" in sizes:
            fault = "it is a TorchScript archive, which holds programs"
            return Contents(TORCHSCRIPT, faults=[fault], way_out="ask for its state dict")
        packed = [m for m in members if m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1]
        # torch finds members whatever their case, in the folder of the first one.
        (twice, count), *_ = Counter(member.filename.casefold() for member in members).most_common(1)
        if count > 1:
            found.faults.append(f"its archive has the member {twice} twice")
        elif any(not member.filename.startswith(prefix) for member in members):
            found.faults.append(f"its archive has members outside the folder {prefix[:40]}")
        elif packed:
            found.faults.append(f"its member {packed[0].filename} is compressed or encrypted, unlike torch.save's")
        elif (claimed := sum(sizes.values())) > size:
            found.faults.append(f"its members claim {claimed} bytes in a file of {size}")
        if found.faults:
            return found
        content = read_member(archive, name)
    try:
        found.scan = scan(io.BytesIO(content))
    except PickleError as error:
        found.faults.append(f"its pickle is broken: {error}")
        return found
    keys = [storage.key for ask in found.scan.outside if (storage := storage_of(ask))]
    return _checked(found, {key: sizes.get(f"{prefix}data/{key}") for key in keys})


def examine_legacy(file: IO[bytes]) -> Contents:
    """Return what a file of torch's old format holds: five pickles, and then the numbers."""
    found = Contents(LEGACY)
    bounded = BoundedFile(file)
    try:
        preamble = [scan(bounded) for _ in range(3)]
        content, keys = scan(bounded), scan(bounded)
    except PickleError as error:
        found.faults.append(f"its pickle is broken: {error}")
        return found
    found.scan = content
    if any(part.names for part in (*preamble, keys)) or not isinstance(keys.root, list):
        found.faults.append("its first pickles are not those of torch.save")
        return found
    widths = {storage.key: storage.width for ask in content.outside if (storage := storage_of(ask))}
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
    return _checked(found, sizes)


def _checked(found: Contents, sizes: dict[str, int | None]) -> Contents:
    """Return the content with its tensors and faults, where the file has so many bytes for each storage."""
    assert found.scan is not None
    found.tensors = list(islice(_tensors(found.scan.root, "", 0, set()), MAX_TENSORS))
    faults = [_storage_fault(ask, sizes) for ask in found.scan.outside]
    faults += [_call_fault(call) for call in found.scan.calls]
    faults += [_state_fault(target, state) for target, state in found.scan.states]
    found.faults += dict.fromkeys(fault for fault in faults if fault)
    return found


def storage_of(ask: Any) -> Storage | None:
    """Return the storage that an object outside the pickle is, or None if it is not described as one."""
    identity = ask.identity if isinstance(ask, Outside) else None
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[5:] not in ((), (None,)):
        return None
    tag, kind, key, _, count = identity[:5]
    name = kind.name.removeprefix("torch.") if isinstance(kind, Reference) else ""
    if tag != "storage" or name not in STORAGES or not isinstance(key, str) or not is_sane([count]):
        return None
    return Storage(key, *STORAGES[name], count)


def is_sane(numbers: Sequence[Any]) -> bool:
    """Say whether these are counts with which to compute costs nothing."""
    return len(numbers) <= MAX_DIMENSIONS and all(type(n) is int and 0 <= n < MAX_INTEGER for n in numbers)


def tensor_fault(offset: Any, shape: Any, strides: Any, stored: int) -> str | None:
    """Return why a tensor does not lie in a storage of `stored` numbers, or shows some of them twice, or None."""
    if not isinstance(shape, tuple | list) or not isinstance(strides, tuple | list) or len(shape) != len(strides):
        return "it has a tensor without a shape, or of another number of strides"
    if not (is_sane([offset]) and is_sane(shape) and is_sane(strides)):
        return "it has a tensor of an impossible shape"
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count > stored or offset > stored or (count and last >= stored):
        return f"it has a tensor of shape {tuple(shape)} over {stored} stored numbers"
    return None


def _layout(call: Record) -> tuple[Storage, Any, Any, Any] | None:
    """Return storage, offset, shape and strides of the tensor that a call rebuilds."""
    storage = storage_of(call.arguments[0]) if len(call.arguments) >= 4 else None
    if storage is None:
        return None
    _, offset, shape, strides = call.arguments[:4]
    if isinstance(shape, Record) and shape.name == "torch.Size" and shape.arguments:
        shape = shape.arguments[0]
    return storage, offset, shape, strides


def _storage_fault(ask: Outside, sizes: dict[str, int | None]) -> str | None:
    storage = storage_of(ask)
    if storage is None:
        return "it asks for something that is not a storage of numbers"
    held, claimed = sizes.get(storage.key), storage.numbers * storage.width
    if held is None:
        return f"it has no numbers for the storage {storage.key[:40]}"
    return f"its storage {storage.key[:40]} claims {claimed} bytes, the file has {held}" if held != claimed else None


def _call_fault(call: Record) -> str | None:
    """Return what is wrong with a call of one of the allowed functions, or None."""
    if call.name in REBUILDERS:
        layout = _layout(call)
        return tensor_fault(*layout[1:], layout[0].numbers) if layout else "it describes a tensor in an unknown way"
    if call.name == "_codecs.encode" and (len(call.arguments) != 2 or call.arguments[1] not in ("latin1", "latin-1")):
        return "it encodes text in another way than torch.save does"
    return None


def _state_fault(target: Any, state: Any) -> str | None:
    """Return what is wrong with what an object is given after it is made, or None."""
    name = target.name if isinstance(target, Record) else "a plain container"
    if isinstance(target, Record) and name not in CALLABLE:  # another program's object, which is refused or left out
        return None
    if name not in WITH_STATE:
        return f"it sets the state of {name}"
    plain = isinstance(state, dict) and all(isinstance(key, str) and key[:2] != "__" for key in state)
    return None if plain else f"it sets more than the attributes of {name}"


def _tensors(node: Any, key: str, depth: int, seen: set[int]) -> Iterator[TensorEntry]:
    """Yield the tensors below an object, one for each key; a parameter is the tensor in it."""
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
