"""What a file of ``torch.save`` holds, and whether reading it is safe; found without reading it with torch.

``torch.load(weights_only=True)`` refuses most of what is looked for here too. But it cannot say why in words that help,
advises to read the file unsafely, believes the lengths in a compressed archive, and uses memory as it finds it where a
file of the old format leaves a tensor without numbers.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, Any

from promptgen.loading.inspection.bounded import BoundedFile, open_zip, read_member
from promptgen.loading.inspection.pickles import scan
from promptgen.loading.inspection.records import Call, Items, Scan, Table
from promptgen.loading.inspection.tensors import (
    PARAMETER,
    REBUILDERS,
    TensorEntry,
    layout_of,
    list_tensors,
    parse_storage,
    storage_fault,
    tensor_fault,
)
from promptgen.loading.stack_machine import PickleError

MAGIC = 0x1950A86A20F9469CFC6C
"""What the old format begins with."""

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

WITH_STATE = {"argparse.Namespace", "collections.OrderedDict"}


@dataclass
class TorchFile:
    """What a file of ``torch.save`` holds.

    Attributes:
        container: name of the format.
        scan: what its pickle would do; None for a TorchScript archive.
        faults: what is wrong with its numbers, in words; what its pickle would call is told by `refused_globals`.
    """

    container: str
    scan: Scan | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def tensors(self) -> list[TensorEntry]:
        """Its tensors, in the order of the file."""
        return list_tensors(self.scan.root) if self.scan else []


def refused_globals(found: Scan) -> list[str]:
    """Return the functions and classes that the pickle of a torch file may not name, or not call."""
    named = [path for path in found.globals if path not in CALLABLE and not NAMEABLE.fullmatch(path)]
    called = [call.path for call in found.calls if call.path not in CALLABLE]
    return list(dict.fromkeys([*named, *called]))


def examine_zip(file: IO[bytes], size: int) -> TorchFile:
    """Return what a torch file in a zip archive holds.

    Raises:
        ArchiveError: the archive is damaged.
    """
    with open_zip(file) as archive:
        members = archive.infolist()
        name = next((member.filename for member in members if member.filename.endswith("/data.pkl")), "data.pkl")
        prefix = name.removesuffix("data.pkl")
        names = {member.filename for member in members}
        if f"{prefix}constants.pkl" in names:
            return TorchFile("TorchScript archive", None, ["it is a TorchScript archive, which holds programs"])
        result = TorchFile("torch zip", None, archive_faults(members, size))
        if result.faults:
            return result
        content = read_member(archive, name)
    result.scan = _scan_into(result.faults, content)
    if result.scan is not None:
        sizes = {member.filename: member.file_size for member in members}
        _check(result, {key: sizes.get(f"{prefix}data/{key}") for key in _storage_keys(result.scan)})
    return result


def archive_faults(members: list[zipfile.ZipInfo], size: int) -> list[str]:
    """Return what is wrong with the members of a torch file of `size` bytes."""
    faults = []
    if twice := [name for name, count in Counter(member.filename for member in members).items() if count > 1]:
        faults.append(f"its archive has the member {twice[0]} twice")
    if packed := [member for member in members if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1]:
        faults.append(f"its member {packed[0].filename} is compressed or encrypted, which torch.save never does")
    elif (claimed := sum(member.file_size for member in members)) > size:
        faults.append(f"its members claim {claimed} bytes in a file of {size}")
    return faults


def examine_legacy(file: IO[bytes], size: int) -> TorchFile:
    """Return what a file of torch's old format holds: five pickles, and then the numbers."""
    result = TorchFile("legacy torch pickle")
    bounded = BoundedFile(file)
    try:
        preamble = [scan(bounded) for _ in range(3)]
        result.scan = scan(bounded)
        keys = scan(bounded).root
    except PickleError as error:
        result.faults.append(f"its pickle is broken: {error}")
        return result
    if any(part.globals for part in preamble) or not isinstance(keys, Items):
        result.faults.append("its first pickles are not those of torch.save")
        return result
    _check(result, _stored(bounded, [key for key in keys.items if isinstance(key, str)], result.scan, size))
    return result


def _stored(file: BoundedFile, keys: list[str], found: Scan, size: int) -> dict[str, int | None]:
    """Return the bytes that the old format has for each storage; None for those that it leaves out."""
    widths = {parsed[0]: parsed[2] for ask in found.persistent if (parsed := parse_storage(ask))}
    sizes: dict[str, int | None] = dict.fromkeys(widths)
    for key in keys:
        head = file.read(8)
        if key not in widths or len(head) < 8:
            break
        length = struct.unpack("<q", head)[0] * widths[key]
        if not 0 <= length <= size - file.tell():
            break
        sizes[key] = length
        file.seek(length, 1)
    return sizes


def _scan_into(faults: list[str], content: bytes) -> Scan | None:
    try:
        return scan(io.BytesIO(content))
    except PickleError as error:
        faults.append(f"its pickle is broken: {error}")
        return None


def _check(result: TorchFile, sizes: dict[str, int | None]) -> None:
    """Add what is wrong with the storages, the tensors and the states to the faults."""
    if result.scan is not None:
        found = [storage_fault(ask, sizes) for ask in result.scan.persistent]
        found += [_call_fault(call) for call in result.scan.calls]
        result.faults += dict.fromkeys(fault for fault in found if fault)


def _storage_keys(found: Scan) -> list[str]:
    return [parsed[0] for ask in found.persistent if (parsed := parse_storage(ask))]


def _call_fault(call: Call) -> str | None:
    """Return what is wrong with a call of the allowed functions."""
    if call.path in REBUILDERS:
        return tensor_fault(layout_of(call))
    if call.path == "_codecs.encode" and (len(call.arguments) != 2 or call.arguments[1] not in ("latin1", "latin-1")):
        return "it encodes text in another way than torch.save does"
    if call.path in CALLABLE and call.states:
        if call.path not in WITH_STATE:
            return f"it sets the state of {call.path}"
        if not all(map(_is_plain_state, call.states)):
            return f"it sets more than the attributes of {call.path}"
    return None


def _is_plain_state(state: Any) -> bool:
    return isinstance(state, Table) and all(isinstance(key, str) and key[:2] != "__" for key, _ in state.pairs)
