"""Read published weight files strictly, without running code from them.

Each file is first examined without torch (`promptgen.loading.inspection`), and read only if that finds no fault. Keys
and shapes must match the network exactly.
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
from torch import Tensor

from promptgen.errors import ModelFileError, first_line
from promptgen.loading.inspection.bounded import visible
from promptgen.loading.inspection.containers import SAFETENSORS, is_safetensors, look_into
from promptgen.loading.inspection.torch_files import LEGACY, ZIP, Contents, refused_names

SHOWN = 3

DAMAGE = (
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, MemoryError),
    *(OSError, EOFError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError),
)
"""Errors that torch, safetensors and the standard library raise for damaged files."""

HALVES = frozenset({torch.float16, torch.bfloat16})
"""Types that are converted to float32."""

COMPILED = "_orig_mod"
"""Part that ``torch.compile`` adds to the keys of a compiled module."""

WRAPPERS = ("module.", "model.", "net.")
"""Prefixes of all keys of a network that was saved inside torch's wrapper for several devices or inside a Lightning
module; Lightning also stores the state dict under `LIGHTNING`."""

MAX_WRAPPERS = 8
LIGHTNING = "state_dict"

REBUILD = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
}
"""Functions and classes that a pickle may call to create tensors and containers."""


def read_torch(path: Path) -> Any:
    """Return the content of a ``torch.save`` file of tensors and plain containers, on the CPU.

    Raises:
        ModelFileError: the file is missing or damaged, or contains objects that need its code to run.
    """
    _examine(path)
    with reading(path, "a torch.save file of plain tensors"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        with torch.serialization.safe_globals([argparse.Namespace]):  # options of a training; plain data
            return torch.load(path, map_location="cpu", weights_only=True)


def _examine(path: Path, containers: Collection[str] = (ZIP, LEGACY), *, foreign: bool = False) -> Contents:
    """Return the content of a weight file, examined without torch.

    Args:
        path: the file.
        containers: allowed formats.
        foreign: whether it may name functions and classes of other programs.

    Raises:
        ModelFileError: the file is missing or damaged, has another format, or would run code.
    """
    wanted = "a torch.save file of plain tensors" if ZIP in containers else "a safetensors file"
    with reading(path, wanted):
        require_file(path, wanted)
        with path.open("rb") as file:
            contents = look_into(file)
    refused = refused_names(contents.scan) if contents.scan and not foreign else []
    if refused and contents.container in containers:
        named = ", ".join(refused[:SHOWN])
        raise ModelFileError(
            f"{path}: refused, since unpickling it would run {named}; save it as plain tensors or safetensors"
        )
    if contents.faults:
        fault = visible("; ".join(contents.faults[:SHOWN]))
        raise ModelFileError(f"{path}: expected {wanted}, but {fault}; {contents.way_out}")
    if contents.container not in containers:
        raise ModelFileError(f"{path}: expected {wanted}, found: {contents.container}; is it another model's file?")
    return contents


def require_file(path: Path, wanted: str) -> None:
    """Refuse a path at which there is no regular file, since a pipe or a device might never end.

    Raises:
        ModelFileError: there is none.
    """
    if not path.exists():
        raise ModelFileError(f"{path}: no such file; fetch the model first")
    if not path.is_file():
        raise ModelFileError(f"{path}: expected {wanted}, got a folder or a device; give the path of a file")


@contextmanager
def reading(path: Path, wanted: str) -> Iterator[None]:
    """Convert the errors that readers raise for a damaged file into a `ModelFileError`."""
    try:
        yield
    except PermissionError as error:
        raise ModelFileError(f"{path}: permission is denied; change its owner or mode") from error
    except DAMAGE as error:
        reason = visible(first_line(error))
        raise ModelFileError(f"{path}: expected {wanted}; fetch it again ({reason})") from error


class Ignored:
    """Stand-in for an object of another program in a file: accepts any arguments and content, and keeps nothing."""

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
    """Stand-in for a function that a pickle may call, since a pickle could permanently change the function itself."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *values: Any) -> Any:
        return self._function(*values)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it would change a function of torch")


class _TensorUnpickler(pickle.Unpickler):
    """Creates only tensors and plain containers; replaces everything else by `Ignored` without importing it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in REBUILD:
            return Ignored
        target = super().find_class(module, name)
        return target if isinstance(target, type) else _Callable(target)


def read_training(path: Path) -> Any:
    """Return the content of a file that also contains objects of a training framework.

    Works like `read_torch`, but replaces everything except tensors and plain containers by `Ignored`. No code of the
    file or of the framework is run.

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
        reason = visible(first_line(error))
        raise ModelFileError(f"{path}: expected a file of torch.save; fetch it again ({reason})") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises:
        ModelFileError: the file is missing or damaged.
    """
    _examine(path, [SAFETENSORS])
    with reading(path, "a safetensors file"):
        return load_file(path)


def read_weights(path: Path, read: Callable[[Path], Any] = read_torch) -> Any:
    """Return the content of a published file, in its original format or as safetensors.

    The metadata of a safetensors file become entries beside its tensors.

    Args:
        path: the file as published, or the same tensors as safetensors, under their dotted names.
        read: function that reads the original format.

    Raises:
        ModelFileError: the file is missing, damaged or refused.
    """
    with reading(path, "a weight file"):
        if path.is_file():
            with path.open("rb") as file:
                if is_safetensors(file.read(9)):
                    return {**_examine(path, [SAFETENSORS]).metadata, **read_safetensors(path)}
    return read(path)


def read_state(path: Path, entry: str = "", read: Callable[[Path], Any] = read_torch) -> dict[str, Tensor]:
    """Return the state dict in a published file, under the network's own keys.

    Args:
        path: the file.
        entry: top-level key of the state dict in the published file; other entries are ignored. A file that is the
            state dict itself, or has it under `state_dict` as training checkpoints do, is read as well.
        read: see `read_weights`.

    Raises:
        ModelFileError: the file cannot be read, or has no state dict.
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
                for name in (LIGHTNING, entry):  # safetensors has entries as the first part of keys
                    state = plain_state(under(f"{name}.", state), source)
                return state
    actual = visible(str(sorted(map(str, entries)))) if isinstance(content, Mapping) else type(content).__name__
    raise ModelFileError(f"{source}: expected {wanted}, found {actual}; is it another model's file?")


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a state dict under a prefix, without the prefix; the whole state dict if no key has it."""
    inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inner or dict(state)


def plain_state(state: Mapping[Any, Tensor], source: Path) -> dict[str, Tensor]:
    """Return a state dict in single precision, under the network's own keys.

    Half precision is converted to float32 before anything is computed from it, such as the norm of a weight. Prefixes
    that compiling and wrappers add to all keys are removed.

    Raises:
        ModelFileError: two keys become equal.
    """
    keys = [".".join(part for part in str(key).split(".") if part != COMPILED) for key in state]
    for _ in range(MAX_WRAPPERS):
        wrapper = next((wrapper for wrapper in WRAPPERS if all(key.startswith(wrapper) for key in keys)), "")
        keys = [key.removeprefix(wrapper) for key in keys]
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise ModelFileError(f"{source}: {visible(twice)} occurs twice, with and without a wrapper; save it once")
    values = (value.detach().float() if value.dtype in HALVES else value.detach() for value in state.values())
    return dict(zip(keys, values, strict=True))


def json_object(text: str, name: str, source: Path) -> dict[str, Any]:
    """Return the JSON object stored under `name` in the metadata of a safetensors file.

    Raises:
        ModelFileError: the text is not a JSON object.
    """
    with reading(source, f"a JSON object under {name!r} in the metadata"):
        return dict(json.loads(text))
