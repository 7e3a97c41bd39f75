"""Reading published weight files: never by running a pickle's code, and never with a key or a shape left over.

What a file is, is found out first, without torch (`promptgen.loading.inspection`); only a file without a fault is then
read.
"""

from __future__ import annotations

import argparse
import json
import pickle
import struct
import warnings
import zipfile
from collections import Counter
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
from promptgen.loading.inspection.containers import SAFETENSORS, is_safetensors, look_into
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

COMPILED = "_orig_mod"
"""What ``torch.compile`` puts into the keys of what it has compiled."""

WRAPPERS = ("module.", "model.", "net.")
"""What precedes every key if a network was saved from within torch's wrapper for several devices, or from within a
training of Lightning, which also puts the state dict under `LIGHTNING`."""

MAX_WRAPPERS = 8
LIGHTNING = "state_dict"

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


def _examine(path: Path, containers: Collection[str] = (ZIP, LEGACY), *, foreign: bool = False) -> Contents:
    """Return what lies in a weight file, found without reading it the usual way.

    Args:
        path: the file.
        containers: formats that it may have.
        foreign: whether it may name functions and classes of other programs.

    Raises:
        ModelFileError: it is missing or damaged, has another format, or would run something.
    """
    wanted = "a torch.save file of plain tensors" if ZIP in containers else "a safetensors file"
    with _reading(path, wanted):
        if not path.exists():
            raise ModelFileError(f"{path}: no such file; fetch the model first")
        if not path.is_file():
            raise ModelFileError(f"{path}: expected {wanted}, got a folder or a device; name the file")
        with path.open("rb") as file:
            contents = look_into(file)
    refused = refused_names(contents.scan) if contents.scan and not foreign else []
    if refused and contents.container in containers:
        named = ", ".join(refused[:SHOWN])
        raise ModelFileError(
            f"{path}: refused, since reading it the usual way would run {named}; get it as plain tensors or safetensors"
        )
    if contents.faults:
        fault = visible("; ".join(contents.faults[:SHOWN]))
        raise ModelFileError(f"{path}: expected {wanted}, but {fault}; {contents.way_out}")
    if contents.container not in containers:
        raise ModelFileError(f"{path}: expected {wanted}, found: {contents.container}; is it another model's file?")
    return contents


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
    _examine(path, [SAFETENSORS])
    with _reading(path, "a safetensors file"):
        return load_file(path)


def read_weights(path: Path, read: Callable[[Path], Any] = read_torch) -> Any:
    """Return the content of a published file, whichever of its two containers it is in.

    The texts in the metadata of a safetensors file become entries beside its tensors.

    Args:
        path: the file: as published, or the same tensors as safetensors, under their dotted names.
        read: what reads it in the container of its publisher.

    Raises:
        ModelFileError: the file is missing, damaged or refused.
    """
    with _reading(path, "a weight file"):
        if path.is_file():
            with path.open("rb") as file:
                if is_safetensors(file.read(9)):
                    return {**_examine(path, [SAFETENSORS]).metadata, **read_safetensors(path)}
    return read(path)


def read_state(path: Path, entry: str = "", read: Callable[[Path], Any] = read_torch) -> dict[str, Tensor]:
    """Return the state dict in a published file, with the network's own keys.

    Args:
        path: the file.
        entry: top-level key under which its publisher has the state dict; other entries are ignored. A file that is the
            state dict alone, or has it under `state_dict` as trainings leave it, is read as well.
        read: as of `read_weights`.

    Raises:
        ModelFileError: the file cannot be read, or has no such entry.
    """
    return state_of(read_weights(path, read), entry, path)


def state_of(content: Any, entry: str, source: Path) -> dict[str, Tensor]:
    """Return the state dict in the content of a published file; see `read_state`."""
    wanted = f"the entry {entry!r}" if entry else "a dict of tensors at the top level"
    entries = content if isinstance(content, Mapping) else {}
    if entry and not isinstance(entries.get(entry), str | Tensor | None):
        state = entries[entry]
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ModelFileError(f"{source}: expected a dict of tensors under {entry!r}; is it another model's file?")
        return plain_state(state, source)
    for candidate in (entries.get(LIGHTNING), entries):
        if isinstance(candidate, Mapping):
            tensors = {key: value for key, value in candidate.items() if isinstance(value, Tensor)}
            if tensors:
                state = plain_state(tensors, source)
                for name in (LIGHTNING, entry):  # in safetensors, entries are the first part of the keys
                    state = plain_state(under(f"{name}.", state), source)
                return state
    found = visible(str(sorted(map(str, entries)))) if isinstance(content, Mapping) else type(content).__name__
    raise ModelFileError(f"{source}: expected {wanted}, found {found}; is it another model's file?")


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a state dict below a prefix, without it; or all of the state dict if nothing is below it."""
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inner or dict(state)


def plain_state(state: Mapping[Any, Tensor], source: Path) -> dict[str, Tensor]:
    """Return a state dict as if it had been saved in single precision, and of the network alone.

    Half precision becomes float32 before anything is computed from it, such as the norm of a weight; and what compiling
    and wrappers have put before every key is taken off.

    Raises:
        ModelFileError: two keys become one.
    """
    keys = [".".join(part for part in str(key).split(".") if part != COMPILED) for key in state]
    for _ in range(MAX_WRAPPERS):
        wrapper = next((wrapper for wrapper in WRAPPERS if all(key.startswith(wrapper) for key in keys)), "")
        keys = [key.removeprefix(wrapper) for key in keys]
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise ModelFileError(f"{source}: {visible(twice)} is there twice, with and without a wrapper; save it once")
    values = (value.detach().float() if value.dtype in HALVES else value.detach() for value in state.values())
    return dict(zip(keys, values, strict=True))


def json_object(text: str, name: str, source: Path) -> dict[str, Any]:
    """Return the JSON object that a safetensors file has in its metadata under a name.

    Raises:
        ModelFileError: it is not one.
    """
    with _reading(source, f"a JSON object under {name!r} in the metadata"):
        return dict(json.loads(text))


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


def require_fractions(state: Mapping[str, Tensor], source: Path) -> None:
    """Refuse integers where a network has fractions, before anything is computed from them: they were cut off.

    Raises:
        ModelFileError: names `source` and the first tensors that are not of floating point.
    """
    if odd := [f"{key} is {_type(value)}" for key, value in state.items() if not value.is_floating_point()]:
        raise ModelFileError(f"{source}: {_listed('not of floating point', odd)[0]}; save it without rounding")


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: Path, hint: str = "") -> None:
    """Copy `state` into `module`, which must have exactly its keys and shapes.

    All numbers must be finite once they are of the module's type, and of floating point where the module's are. A
    buffer in which the module itself has put infinities, such as a mask of attention, may have them. The look at 100
    million numbers takes less than a tenth of a second on one core.

    Args:
        module: the module.
        state: a value for each of its names.
        source: the file, for errors.
        hint: what to do if keys or shapes differ.

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
        way_out = hint or "does the configured size belong to this file?"
        raise ModelFileError(f"{source}: {'; '.join(differences)}; {way_out}")
    if faults := number_faults(own, state):
        raise ModelFileError(f"{source}: {'; '.join(faults)}; fetch it again")
    module.load_state_dict(state)


def number_faults(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return what is wrong with the numbers of a state dict that is to be copied into `own`, in words."""
    odd = [f"{key} ({value.dtype})" for key, value in state.items() if value.dtype not in DTYPES]
    if odd:
        return _listed("of no type that weights have", odd)
    lossy = [
        f"{key} is {_type(value)}, expected {_type(own[key])}"
        for key, value in state.items()
        if not _is_kept(value, own[key])
    ]
    infinite = [key for key, value in state.items() if not _is_finite(value, own[key])]
    return _listed("of another type of numbers", lossy) or _listed("not finite", infinite)


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _is_kept(value: Tensor, own: Tensor) -> bool:
    """Say whether `value` keeps its meaning in the type of `own`: fractions may be rounded, and nothing else."""
    if own.is_floating_point():
        return value.is_floating_point()
    return value.dtype == own.dtype or bool((value.to(own.dtype).to(value.dtype) == value).all())


def _is_finite(value: Tensor, own: Tensor) -> bool:
    """Say whether `value` may be copied into `own`, by its extremes, which need no memory: a NaN is both of them."""
    if not own.is_floating_point() or not value.numel():
        return True
    low, high = torch.aminmax(value.to(own.dtype))
    if bool(low.isfinite() & high.isfinite()):
        return True
    return not bool(low.isnan()) and bool(own.isinf().any())


def _listed(what: str, keys: Collection[str]) -> list[str]:
    first = visible(", ".join(sorted(keys)[:SHOWN]))
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return [f"{what}: {first}{more}"] if keys else []
