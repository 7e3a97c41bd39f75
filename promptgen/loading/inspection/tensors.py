"""Tensors and storages as the pickle of a torch file describes them, and whether the one fits into the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptgen.loading.inspection.records import Call, Global, Items, Persistent, walk

STORAGES = {
    **{"DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4), "HalfStorage": ("float16", 2)},
    **{"BFloat16Storage": ("bfloat16", 2), "LongStorage": ("int64", 8), "IntStorage": ("int32", 4)},
    **{"ShortStorage": ("int16", 2), "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1)},
    **{"BoolStorage": ("bool", 1), "ComplexFloatStorage": ("complex64", 8), "ComplexDoubleStorage": ("complex128", 16)},
}
"""Type and bytes of the numbers, by the name of their storage."""

PARAMETER = "torch._utils._rebuild_parameter"
REBUILDERS = frozenset({"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"})
MAX_DIMENSIONS = 32
MAX_SIZE = 1 << 62


@dataclass(frozen=True)
class TensorEntry:
    """A tensor as its file describes it.

    Attributes:
        key: dotted path through the file's containers.
        shape: its shape.
        dtype: type of its numbers.
        again: whether it is a tensor that another key before has already named.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    again: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in its storage."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: str
    stored: int

    @property
    def last(self) -> int:
        """Index of its last number in the storage."""
        return self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))


def layout_of(call: Call) -> Layout | None:
    """Return how the tensor of a call lies in its storage, or None if the call does not describe that."""
    if len(call.arguments) < 4 or not isinstance(call.arguments[0], Persistent):
        return None
    storage, (offset, shape, strides) = parse_storage(call.arguments[0]), call.arguments[1:4]
    sizes, steps = _integers(shape), _integers(strides)
    if storage is None or sizes is None or steps is None or len(sizes) != len(steps) or not is_sane([offset]):
        return None
    return Layout(sizes, steps, offset, storage[1], storage[3])


def _integers(items: Any) -> tuple[int, ...] | None:
    """Return the integers of a tuple, or of a `torch.Size`; None if there is something else."""
    inner = items.arguments[0] if isinstance(items, Call) and items.path == "torch.Size" and items.arguments else items
    return tuple(inner.items) if isinstance(inner, Items) and is_sane(inner.items) else None


def is_sane(shape: Sequence[Any]) -> bool:
    """Say whether a shape has as many dimensions, and of such sizes, that to compute with it costs nothing."""
    return len(shape) <= MAX_DIMENSIONS and all(type(size) is int and abs(size) < MAX_SIZE for size in shape)


def list_tensors(root: Any) -> list[TensorEntry]:
    """Return the tensors below a record, one for each key; a parameter is the tensor in it."""
    found: dict[str, TensorEntry] = {}
    seen: set[int] = set()
    for key, node in walk(root):
        inner = node.arguments[0] if isinstance(node, Call) and node.path == PARAMETER and node.arguments else node
        layout = layout_of(inner) if isinstance(inner, Call) and inner.path in REBUILDERS else None
        if layout is not None and key not in found:
            found[key] = TensorEntry(key, layout.shape, layout.dtype, id(inner) in seen)
            seen.add(id(inner))
    return list(found.values())


def parse_storage(ask: Persistent) -> tuple[str, str, int, int] | None:
    """Return key, type, bytes of a number and count of numbers of a storage, or None if it is not described so."""
    identity = ask.identity.items if isinstance(ask.identity, Items) else []
    if len(identity) not in (5, 6) or identity[0] != "storage" or identity[5:] not in ([], [None]):  # None: old format
        return None
    kind, key, count = identity[1], identity[2], identity[4]
    name = kind.path.removeprefix("torch.") if isinstance(kind, Global) else ""
    if name not in STORAGES or not isinstance(key, str) or not is_sane([count]) or count < 0:
        return None
    return key, *STORAGES[name], count


def storage_fault(ask: Persistent, sizes: dict[str, int | None]) -> str | None:
    """Return what is wrong with a storage."""
    parsed = parse_storage(ask)
    if parsed is None:
        return "it asks for something that is not a storage of numbers"
    key, _, width, count = parsed
    have = sizes.get(key)
    if have is None:
        return f"it has no numbers for the storage {key[:40]}"
    if have != count * width:
        return f"its storage {key[:40]} claims {count * width} bytes, the file has {have}"
    return None


def tensor_fault(layout: Layout | None) -> str | None:
    """Return what is wrong with a tensor."""
    if layout is None:
        return "it describes a tensor in an unknown way"
    if min((layout.offset, *layout.shape, *layout.strides)) < 0:
        return f"a tensor has a negative size, stride or offset: {layout.shape}"
    count = math.prod(layout.shape)
    if count > layout.stored or (count and layout.last >= layout.stored):
        return f"a tensor claims shape {layout.shape} over {layout.stored} stored numbers"
    return None
