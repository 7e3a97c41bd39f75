"""Read pickles of published models without running any code that they name.

A pickle is a program that names functions and classes and calls them. This module interprets its opcodes one by one,
with an allow-list of names. Functions of this module create the allowed plain data and tensors; every other allowed
name becomes an inert `Record` of the call. Names that are not on the list and opcodes that such files do not need are
refused. Nothing is imported or called because a file says so, and no claimed length is trusted before the file has
proved to be that long.
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

from promptgen.errors import ModelFileError, one_line
from promptgen.loading.inspection.bounded import BoundedFile
from promptgen.loading.inspection.persistent import PLAIN_NAMES
from promptgen.loading.inspection.torch_files import tensor_fault
from promptgen.loading.stack_machine import MAX_STEPS, STEPS, PickleError, Record, Reference, StackMachine, kind_of

STORAGE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of a storage: the first of the five pickles of an old ``torch.save`` file."""

DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    }
)
"""Types of numbers that weights may have."""

NUMBERS = {"b1": "?", "i1": "b", "u1": "B", "i2": "h", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d"}
"""Format characters of `struct`, by numpy type code."""

LONGEST_NAME = 80


def read_pickle(path: Path, classes: Collection[str] = ()) -> Any:
    """Return the content of a pickle of protocol 3 to 5: plain data, tensors on the CPU, and records.

    Args:
        path: the file.
        classes: dotted names of the classes and functions that the file may use in addition to plain data and tensors;
            they become records.

    Raises:
        ModelFileError: the file is missing or damaged, or uses any other name.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file; fetch the model first")
    try:
        # The standard library and torch can also warn about a damaged file.
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            source = BoundedFile(file)
            return _Reader(PLAIN_NAMES | frozenset(classes), source.size).run(source, MAX_STEPS)
    except Exception as error:  # a damaged pickle can fail in any way
        raise ModelFileError(
            f"{path}: expected a pickle of tensors and known classes; fetch it again ({one_line(error)})"
        ) from error


class _Reader(StackMachine):
    """Creates plain data, tensors and records of other allowed names; refuses everything else.

    Args:
        inert: allowed names that become records.
        size: largest total number of bytes that may be decoded.
    """

    steps = STEPS

    def __init__(self, inert: frozenset[str], size: int) -> None:
        super().__init__()
        self.inert = inert
        self.unread = size

    def named(self, module: Any, name: Any) -> Reference:
        # Only types are shown: printing deeply shared objects can take forever.
        if not (isinstance(module, str) and isinstance(name, str)):
            raise PickleError(f"it names something by a {kind_of(module)} and a {kind_of(name)}")
        path = f"{module}.{name}"
        if path not in self.inert and path not in MAKERS:
            shown = path.encode("ascii", "backslashreplace").decode()[:LONGEST_NAME]
            raise PickleError(f"it asks for {shown}, which is not on the list of allowed names")
        return Reference(path)

    def called(self, function: Any, arguments: Any) -> Any:
        """Return the result of a call of an allowed name; nothing else can be called."""
        if not isinstance(function, Reference) or not isinstance(arguments, tuple):
            raise PickleError(f"it calls a {kind_of(function)} with a {kind_of(arguments)}")
        # A pickle can refer to the same bytes any number of times, but no honest file decodes its numbers twice.
        self.unread -= sum(len(argument) for argument in arguments if isinstance(argument, bytes))
        if self.unread < 0:
            raise PickleError("it makes more numbers than it holds")
        maker = MAKERS.get(function.name)
        return Record(function.name, arguments) if maker is None else maker(*arguments)


@dataclass(frozen=True)
class _Storage:
    numbers: Tensor  # (N,)


def _storage(content: bytes) -> _Storage:
    """Return the storage in `content`, written by an old ``torch.save``."""
    if not content.startswith(STORAGE_MAGIC):
        raise PickleError("it has a storage in a container of another kind")
    stream = io.BytesIO(content)
    for _ in range(3):  # magic number, protocol, type sizes
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
    """Return a tensor over part of a storage; refuse one that exceeds the storage or repeats its numbers."""
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
    """Return the value of a numpy scalar."""
    (code, *_) = dtype.arguments
    if not isinstance(code, str):  # hashing nested tuples can take forever
        raise PickleError(f"it has a {kind_of(code)} for a type of numbers")
    big = isinstance(dtype.state, tuple) and dtype.state[1:2] == (">",)
    (value,) = struct.unpack((">" if big else "<") + NUMBERS[code], content)
    return value


def _dict(*factory: Any) -> dict[Any, Any]:
    """Return an empty dict; later opcodes of the file fill it."""
    if any(not isinstance(entry, Reference) for entry in factory):
        raise PickleError("it creates a dict in a way that weight files do not need")
    return {}


MAKERS: Mapping[str, Callable[..., Any]] = {
    "builtins.dict": _dict,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "numpy.dtype": lambda *arguments: Record("numpy.dtype", arguments),
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
"""Functions that create plain data and tensors, by the name in the file."""
