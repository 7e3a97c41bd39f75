"""Reading pickles of published models without running anything that they ask for.

A pickle is a program: it names functions and classes and has them called. Here its steps are taken apart one by one
instead, with a list of the names that it may use. A name of the list that stands for plain data or for a tensor is
made by a function of this module; any other becomes an inert `Record` of what the file would have done with it. A name
that is not on the list, and every step that such files do without, is refused. Nothing is imported or called because a
file says so, and no length in a file is believed before the file is seen to be as long.
"""

from __future__ import annotations

import io
import pickletools
import struct
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptgen.errors import ModelFileError
from promptgen.loading.inspection.bounded import BoundedFile
from promptgen.loading.inspection.persistent import PLAIN_NAMES
from promptgen.loading.inspection.torch_files import tensor_fault
from promptgen.loading.stack_machine import MAX_STEPS, STEPS, PickleError, Record, Reference, StackMachine, kind_of

STORAGE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How the bytes of a storage begin: the first of the five pickles of an old ``torch.save`` file."""

DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    }
)
"""Types of numbers that weights may have."""

NUMBERS = {"b1": "?", "i1": "b", "u1": "B", "i2": "h", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d"}
"""Formats of `struct` by numpy's names of types."""

LONGEST_NAME = 80
LONGEST_REASON = 240


def read_pickle(path: Path, classes: Collection[str] = ()) -> Any:
    """Return what a pickle of protocol 3 to 5 holds: plain data, tensors on the CPU, and records.

    Args:
        path: the file.
        classes: dotted names of the classes and functions that the file may use beside plain data and tensors; what it
            makes of them becomes records.

    Raises:
        ModelFileError: the file is missing or damaged, or asks for anything else.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file; fetch the model first")
    try:
        # A damaged file can also make the standard library and torch warn.
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            source = BoundedFile(file)
            return _Reader(PLAIN_NAMES | frozenset(classes), source.size).run(source, MAX_STEPS)
    except Exception as error:  # a damaged pickle can fail in any way
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise ModelFileError(
            f"{path}: expected a pickle of tensors and known classes; fetch it again ({reason})"
        ) from error


class _Reader(StackMachine):
    """Makes plain data and tensors, and records of what else is on the list; anything else is refused.

    Args:
        inert: names that become records.
        size: bytes that may be made into something.
    """

    steps = STEPS

    def __init__(self, inert: frozenset[str], size: int) -> None:
        super().__init__()
        self.inert = inert
        self.unread = size

    def named(self, module: Any, name: Any) -> Reference:
        # Showing an object that holds another twice, and so on, can take forever.
        if not (isinstance(module, str) and isinstance(name, str)):
            raise PickleError(f"it names something by a {kind_of(module)} and a {kind_of(name)}")
        path = f"{module}.{name}"
        if path not in self.inert and path not in MAKERS:
            shown = path.encode("ascii", "backslashreplace").decode()[:LONGEST_NAME]
            raise PickleError(f"it asks for {shown}, which is not on the list of what it may hold")
        return Reference(path)

    def called(self, function: Any, arguments: Any) -> Any:
        """Make what a call of a name stands for; nothing else can be called."""
        if not isinstance(function, Reference) or not isinstance(arguments, tuple):
            raise PickleError(f"it calls a {kind_of(function)} with a {kind_of(arguments)}")
        # Bytes can be referred to any number of times, but no file has its numbers made from them twice.
        self.unread -= sum(len(argument) for argument in arguments if isinstance(argument, bytes))
        if self.unread < 0:
            raise PickleError("it makes more numbers than it holds")
        maker = MAKERS.get(function.name)
        return Record(function.name, arguments) if maker is None else maker(*arguments)


@dataclass(frozen=True)
class _Storage:
    numbers: Tensor  # (N,)


def _storage(content: bytes) -> _Storage:
    """Return the storage that an old ``torch.save`` wrote into `content`."""
    if not content.startswith(STORAGE_MAGIC):
        raise PickleError("it has a storage in a container of another kind")
    stream = io.BytesIO(content)
    for _ in range(3):  # magic number, protocol, sizes of types
        for _step in pickletools.genops(stream):
            pass
    claimed = max(value for _, value, _ in pickletools.genops(stream) if isinstance(value, int))
    if claimed > len(content):
        raise PickleError(f"it has a storage of {len(content)} bytes that claims {claimed} numbers")
    loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(loaded, torch.storage.TypedStorage) or loaded.dtype not in DTYPES:
        raise PickleError(f"it has a {type(loaded).__name__} for a storage of numbers")
    return _Storage(torch.tensor([], dtype=loaded.dtype).set_(loaded))


def _tensor(storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    """Return the tensor that shows a part of a storage; one that reaches beyond it, or repeats it, is refused."""
    if not isinstance(storage, _Storage):
        raise PickleError("it has a tensor without a storage")
    if (fault := tensor_fault(offset, size, stride, storage.numbers.numel())) is not None:
        raise PickleError(fault)
    return storage.numbers.as_strided(tuple(size), tuple(stride), offset)


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise PickleError(f"it has a {type(tensor).__name__} for a parameter")
    return tensor


def _number(dtype: Record, content: bytes) -> Any:
    """Return a number that was one of numpy's."""
    (code, *_) = dtype.arguments
    if not isinstance(code, str):  # hashing a nested tuple can take forever
        raise PickleError(f"it has a {kind_of(code)} for a type of numbers")
    big = isinstance(dtype.state, tuple) and dtype.state[1:2] == (">",)
    (value,) = struct.unpack((">" if big else "<") + NUMBERS[code], content)
    return value


def _dtype(*arguments: Any) -> Record:
    return Record("numpy.dtype", arguments)


def _dict(*factory: Any) -> dict[Any, Any]:
    """Return an empty dict, which a file fills by further steps."""
    if any(not isinstance(made, Reference) for made in factory):
        raise PickleError("it fills a dict in a way that files of weights do without")
    return {}


MAKERS: Mapping[str, Callable[..., Any]] = {
    "builtins.dict": _dict,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
"""What makes plain data and tensors, by the name that a file uses for it."""
