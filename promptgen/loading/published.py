"""Reading published weight files: never by running a pickle's code, and never with a key or a shape left over.

What a file is, is found out first, without torch (`promptgen.loading.inspection`); only a file without a fault is then
read.
"""

from __future__ import annotations

import argparse
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from promptgen.errors import ModelFileError
from promptgen.loading.inspection.bounded import visible
from promptgen.loading.inspection.containers import look_into
from promptgen.loading.inspection.torch_files import LEGACY, ZIP, Contents, refused_names
from promptgen.loading.restricted import DTYPES

SHOWN = 3

DAMAGE = (
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, MemoryError),
    *(OSError, EOFError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError),
)
"""Whatever torch, safetensors and the standard library raise at damaged files."""

HALVES = frozenset({torch.float16, torch.bfloat16})
"""Types of numbers that are read as float32."""

WRAPPER = "module."
"""Precedes every key if the network was saved from within torch's wrapper for training on several devices."""

REBUILD = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
}
"""What a pickle may call to put tensors and containers together."""


def read_torch(path: Path) -> Any:
    """Return the content of a file written by ``torch.save``, on the CPU, of tensors and plain containers.

    Raises:
        ModelFileError: the file is missing or damaged, or holds objects that only running its pickle would make.
    """
    _examine(path)
    with _reading(path, "a torch.save file of plain tensors"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        with torch.serialization.safe_globals([argparse.Namespace]):  # trainings save their options; it is only data
            return torch.load(path, map_location="cpu", weights_only=True)


def _examine(path: Path, *, foreign: bool = False) -> Contents:
    """Return what lies in a torch file, found without reading it with torch.

    Args:
        path: the file.
        foreign: whether it may name functions and classes of other programs.

    Raises:
        ModelFileError: it is missing or damaged, is no torch file, or would run something.
    """
    wanted = "a torch.save file of plain tensors"
    with _reading(path, wanted):
        if not path.exists():
            raise ModelFileError(f"{path}: no such file; fetch the model first")
        if not path.is_file():
            raise ModelFileError(f"{path}: expected {wanted}, got a folder or a device; name the file")
        with path.open("rb") as file:
            found = look_into(file)
    refused = refused_names(found.scan) if found.scan and not foreign else []
    if refused and found.container in (ZIP, LEGACY):
        named = ", ".join(refused[:SHOWN])
        raise ModelFileError(
            f"{path}: refused, since reading it the usual way would run {named}; get it as plain tensors or safetensors"
        )
    if found.faults:
        fault = visible("; ".join(found.faults[:SHOWN]))
        raise ModelFileError(f"{path}: expected {wanted}, but {fault}; {found.way_out}")
    if found.container not in (ZIP, LEGACY):
        raise ModelFileError(f"{path}: expected {wanted}, found: {found.container}; is it another model's file?")
    return found


@contextmanager
def _reading(path: Path, wanted: str) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into a `ModelFileError`."""
    try:
        yield
    except PermissionError as error:
        raise ModelFileError(f"{path}: permission is denied; change its owner or mode") from error
    except DAMAGE as error:
        reason = visible((str(error).splitlines() or [type(error).__name__])[0])
        raise ModelFileError(f"{path}: expected {wanted}; fetch it again ({reason})") from error


class Ignored:
    """Stands for any object of another program in a file: made of anything, filled with anything, keeping nothing."""

    def __init__(self, *values: Any, **named: Any) -> None:
        pass

    def __call__(self, *values: Any, **named: Any) -> Ignored:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class _Callable:
    """Stands for a function that a pickle may call: the function itself could be changed by one, for good."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *values: Any) -> Any:
        return self._function(*values)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it would change a function of torch")


class _TensorUnpickler(pickle.Unpickler):
    """Makes tensors and plain containers only; puts `Ignored` in the place of anything else, which it never imports."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in REBUILD:
            return Ignored
        found = super().find_class(module, name)
        return found if isinstance(found, type) else _Callable(found)


def read_training(path: Path) -> Any:
    """Return the content of a file in which a training framework left its own objects among tensors.

    As `read_torch`, except that anything but tensors and plain containers becomes an `Ignored`; no code of the file,
    nor of the framework, is run.

    Raises:
        ModelFileError: the file is missing or damaged.
    """
    if _examine(path, foreign=True).container != ZIP:
        return read_torch(path)
    unpickling = ModuleType("unpickling")
    unpickling.Unpickler = _TensorUnpickler  # type: ignore[attr-defined]
    try:
        return torch.load(path, map_location="cpu", pickle_module=unpickling, weights_only=False)
    except Exception as error:  # a damaged pickle can fail in any way
        reason = visible((str(error).splitlines() or [type(error).__name__])[0])
        raise ModelFileError(f"{path}: expected a file of torch.save; fetch it again ({reason})") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises:
        ModelFileError: the file is missing or damaged.
    """
    with _reading(path, "a safetensors file"):
        path.open("rb").close()  # for safetensors, a file that may not be read is one that is not there
        return load_file(path)


def read_state(path: Path, entry: str, read: Callable[[Path], Any] = read_torch) -> dict[str, Tensor]:
    """Return the state dict under the top-level key `entry` of a ``torch.save`` file; other entries are ignored.

    Args:
        path: the file.
        entry: the key.
        read: what reads the file, `read_torch` or `read_training`.

    Raises:
        ModelFileError: the file cannot be read, has no such entry, or the entry is not a dict of tensors.
    """
    content = read(path)
    if not isinstance(content, Mapping) or entry not in content:
        found = visible(str(sorted(map(str, content)))) if isinstance(content, Mapping) else type(content).__name__
        raise ModelFileError(f"{path}: expected the entry {entry!r}, found {found}; is it another model's file?")
    state = content[entry]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelFileError(f"{path}: expected a dict of tensors under {entry!r}; is it another model's file?")
    return plain_state(state)


def read_flat_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``torch.save`` file that is a state dict itself; other entries are ignored.

    Raises:
        ModelFileError: the file cannot be read, or holds no tensor at its top level.
    """
    content = read_torch(path)
    entries = content.items() if isinstance(content, Mapping) else ()
    state = {key: value for key, value in entries if isinstance(value, Tensor)}
    if not state:
        raise ModelFileError(f"{path}: expected a dict of tensors at the top level; is it another model's file?")
    return plain_state(state)


def plain_state(state: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as if it had been saved in single precision, and of the network alone.

    Half precision becomes float32 before anything is computed from it, such as the norm of a weight; and what a wrapper
    for several devices has put before every key is taken off.
    """
    keys = [str(key) for key in state]
    if all(key.startswith(WRAPPER) for key in keys):
        keys = [key.removeprefix(WRAPPER) for key in keys]
    values = (value.detach().float() if value.dtype in HALVES else value.detach() for value in state.values())
    return dict(zip(keys, values, strict=True))


def require_numbers(needed: int, state: Mapping[str, Tensor], source: Path) -> None:
    """Refuse a file that describes a network larger than itself, before it is built: a kilobyte may describe any.

    Args:
        needed: numbers that the described network has at the least.
        state: the file's tensors.
        source: the file, for errors.

    Raises:
        ModelFileError: the file holds fewer.
    """
    held = sum(value.numel() for value in state.values())
    if needed > held:
        raise ModelFileError(f"{source}: it describes {needed} numbers or more, and holds {held}; fetch it again")


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Copy `state` into `module`, which must have exactly its keys and shapes.

    All numbers must be finite once they are of the module's type. A buffer in which the module itself has put
    infinities, such as a mask of attention, may have them; integers need no look. The look at 100 million numbers takes
    less than a tenth of a second on one core.

    Raises:
        ModelFileError: keys, shapes or types of numbers differ, or numbers are not finite; names `source` and the first
            differences.
    """
    own = module.state_dict()
    wrong_shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    differences = [
        *_listed("missing", own.keys() - state.keys()),
        *_listed("unexpected", state.keys() - own.keys()),
        *_listed("of another shape", wrong_shapes),
    ]
    if differences:
        raise ModelFileError(f"{source}: {'; '.join(differences)}; does the configured size belong to this file?")
    if faults := number_faults(own, state):
        raise ModelFileError(f"{source}: {'; '.join(faults)}; fetch it again")
    module.load_state_dict(state)


def number_faults(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return what is wrong with the numbers of a state dict that is to be copied into `own`, in words: see above."""
    odd = [f"{key} ({value.dtype})" for key, value in state.items() if value.dtype not in DTYPES]
    if odd:
        return _listed("of no type that weights have", odd)
    return _listed("not finite", [key for key, value in state.items() if not _is_finite(value, own[key])])


def _is_finite(value: Tensor, own: Tensor) -> bool:
    """Say whether `value` may be copied into `own`, by its extremes, which need no memory: a NaN is both of them."""
    if not own.is_floating_point() or not value.is_floating_point() or not value.numel():
        return True
    low, high = torch.aminmax(value.to(own.dtype))
    if bool(low.isfinite() & high.isfinite()):
        return True
    return not bool(low.isnan()) and bool(own.isinf().any())


def _listed(what: str, keys: Collection[str]) -> list[str]:
    first = visible(", ".join(sorted(keys)[:SHOWN]))
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return [f"{what}: {first}{more}"] if keys else []
