"""Reading pickles of published models without running anything that they ask for.

A pickle is a program: it names functions and classes and has them called. Here its steps are taken apart one by one
instead, with a list of the names that it may use. A name of the list that stands for plain data or for a tensor is
made by a function of this module; any other becomes an inert `Record` of what the file would have done with it. A name
that is not on the list, and every step that such files do without, is refused. Nothing is imported or called because a
file says so, and no length in a file is believed before the file is seen to be as long.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
import struct
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from promptgen.errors import ModelFileError
from promptgen.loading.stack_machine import STEPS, PickleError, StackMachine

INERT = frozenset({f"builtins.{name}" for name in ("bool", "bytes", "float", "frozenset", "int", "list", "set", "str")})
"""Names that any file may use, and that become records."""

STORAGE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How the bytes of a storage begin: the first of the five pickles of an old ``torch.save`` file."""

DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    }
)
NUMBERS = {"b1": "?", "i1": "b", "u1": "B", "i2": "h", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d"}
"""Formats of `struct` by numpy's names of types."""

MAX_STEPS = 2_000_000
"""A step can make an object that is much larger than itself; a network of 49 objects takes about 25 thousand."""

MAX_DIMENSIONS = 8
MAX_LINE = 1024
LONGEST_NAME = 80
LONGEST_REASON = 240
_LARGEST = 1 << 60


@dataclass(frozen=True)
class Reference:
    """A name of the list that a file mentions.

    Attributes:
        name: the dotted name.
    """

    name: str


@dataclass(eq=False, slots=True)
class Record:
    """What a file says of an object that is not made.

    Attributes:
        name: dotted name of its class, or of the function that would have made it.
        arguments: what that would have been called with.
        state: what the object would have been given afterwards, mostly its attributes by name.
        items: what would have been put into it as into a dict.
        elements: what would have been put into it as into a list or set.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


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
            source = _Bounded(file)
            return _Reader(INERT | frozenset(classes), source.left).run(source, MAX_STEPS)
    except Exception as error:  # a damaged pickle can fail in any way
        reason = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
        raise ModelFileError(
            f"{path}: expected a pickle of tensors and known classes; fetch it again ({reason})"
        ) from error


class _Bounded:
    """A file that is never asked for more than it holds."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.left = os.fstat(file.fileno()).st_size

    def read(self, n: int) -> bytes:
        if not 0 <= n <= self.left:
            raise EOFError(f"it ends after {self.tell()} bytes, within a value of {n}")
        self.left -= n
        return self.file.read(n)

    def readline(self) -> bytes:
        line = self.file.readline(min(self.left, MAX_LINE))
        self.left -= len(line)
        return line

    def tell(self) -> int:
        return self.file.tell()


class _Reader(StackMachine):
    """Makes plain data and tensors, and records of what else is on the list; anything else is refused.

    Args:
        inert: names that become records.
        size: bytes that may be made into something.
    """

    def __init__(self, inert: frozenset[str], size: int) -> None:
        super().__init__(STEPS)
        self.inert = inert
        self.unread = size

    def empty(self, kind: Literal["dict", "list", "set"]) -> Any:
        return {"dict": {}, "list": [], "set": Record("builtins.set")}[kind]

    def tuple_of(self, items: list[Any]) -> tuple[Any, ...]:
        return tuple(items)

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list | Record):
            raise PickleError(f"it appends to a {type(target).__name__}")
        (target.elements if isinstance(target, Record) else target).extend(items)

    def update(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict | Record):
            raise PickleError(f"it puts items into a {type(target).__name__}")
        items = target.items if isinstance(target, Record) else target
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Hashing a nested tuple, or colliding numbers, can take forever.
            if not isinstance(key, str | None) and not (isinstance(key, int) and abs(key) < _LARGEST):
                raise PickleError(f"it has a {type(key).__name__} as a key, expected a word or a number")
            items[key] = value

    def build(self, state: Any) -> None:
        """Give a record its state; the attributes of a plain container are left out."""
        target = self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):
            raise PickleError(f"it gives attributes to a {type(target).__name__}")

    def named(self, module: Any, name: Any) -> Reference:
        # Showing an object that holds another twice, and so on, can take forever.
        if not (isinstance(module, str) and isinstance(name, str)):
            raise PickleError(f"it names something by a {type(module).__name__} and a {type(name).__name__}")
        path = f"{module}.{name}"
        if path not in self.inert and path not in _MAKERS:
            shown = path.encode("ascii", "backslashreplace").decode()[:LONGEST_NAME]
            raise PickleError(f"it asks for {shown}, which is not on the list of what it may hold")
        return Reference(path)

    def called(self, function: Any, arguments: Any) -> Any:
        """Make what a call of a name stands for; nothing else can be called."""
        if not isinstance(function, Reference) or not isinstance(arguments, tuple):
            raise PickleError(f"it calls a {type(function).__name__} with a {type(arguments).__name__}")
        # Bytes can be referred to any number of times, but no file has its numbers made from them twice.
        self.unread -= sum(len(argument) for argument in arguments if isinstance(argument, bytes))
        if self.unread < 0:
            raise PickleError("it makes more numbers than it holds")
        maker = _MAKERS.get(function.name)
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
    if not isinstance(storage, _Storage) or len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise PickleError("it has a tensor without a storage, or of too many dimensions")
    if any(type(n) is not int or not 0 <= n < _LARGEST for n in (offset, *size, *stride)):
        raise PickleError("it has a tensor of an impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    shown, held = math.prod(int(n) for n in size), storage.numbers.numel()
    if shown > held or offset > held or (shown and last >= held):
        raise PickleError(f"it has a tensor of shape {tuple(size)} on a storage of {held} numbers")
    return storage.numbers.as_strided(tuple(size), tuple(stride), offset)


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise PickleError(f"it has a {type(tensor).__name__} for a parameter")
    return tensor


def _number(dtype: Record, content: bytes) -> Any:
    """Return a number that was one of numpy's."""
    (code, *_) = dtype.arguments
    if not isinstance(code, str):  # hashing a nested tuple can take forever
        raise PickleError(f"it has a {type(code).__name__} for a type of numbers")
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


_MAKERS: Mapping[str, Callable[..., Any]] = {
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
