"""Networks that a published pickle stores as whole objects: their classes, attributes and tensors, none of it run.

A network is a tree of modules. Each keeps its tensors under `_parameters` and `_buffers`, its children under
`_modules`, and everything else, such as a size or a padding, as plain attributes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from promptgen.errors import ModelFileError
from promptgen.loading.inspection.bounded import visible
from promptgen.loading.inspection.containers import PLAIN_PICKLE, look_into
from promptgen.loading.inspection.networks import name_network
from promptgen.loading.inspection.persistent import CLASSES, attributes, class_of, family_of, plain_items
from promptgen.loading.published import HALVES, json_object, read_weights, state_of
from promptgen.loading.restricted import NUMBERS, STORAGE_MAGIC, read_pickle
from promptgen.loading.stack_machine import Record, Reference

T = TypeVar("T")

ENTRY, SETTINGS = "G_ema", "_init_kwargs"
"""Names of the network in a published pickle, and of its settings."""

MAX_MODULES = 10_000
MAX_DEPTH = 32
HEAD = 64
"""Bytes in which an old ``torch.save`` file shows itself."""

NOUNS: Mapping[type, str] = {int: "an integer", float: "a number", str: "a word", bool: "true or false"}
_NAME = re.compile(r"\w{1,64}")


@dataclass(frozen=True)
class StoredModule:
    """A module of a network in a file.

    Attributes:
        record: the stored object.
        path: the file, for errors.
        name: dotted name of the module in its network; empty for the network itself.
    """

    record: Record
    path: Path
    name: str = ""

    @property
    def class_name(self) -> str:
        """Name of the module's class, without its package."""
        return class_of(self.record)

    @property
    def attributes(self) -> Mapping[Any, Any]:
        """Everything that the object holds, by name."""
        return attributes(self.record)

    def children(self) -> dict[str, StoredModule]:
        """Return the modules directly inside, by name, in the order of the file."""
        prefix = f"{self.name}." if self.name else ""
        try:
            members = dict(named_members(self.attributes, "_modules"))
        except ValueError as error:
            raise self.fault(f"{self.shown} is not a valid module ({error})") from error
        return {
            name: StoredModule(child, self.path, f"{prefix}{name}")
            for name, child in members.items()
            if isinstance(child, Record)
        }

    def child(self, dotted: str) -> StoredModule:
        """Return the module under a dotted name.

        Raises:
            ModelFileError: there is none.
        """
        module = self
        for part in dotted.split("."):
            children = module.children()
            if part not in children:
                raise self.fault(f"{module.shown} has no {part}")
            module = children[part]
        return module

    def number(self, name: str, kind: type[T]) -> T:
        """Return an attribute that is one number; a float may be written as an integer.

        Raises:
            ModelFileError: there is no such attribute, or it is something else.
        """
        value = self.attributes.get(name)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.fault(f"{self.shown} has {name} = {_short(value)}, expected {NOUNS[kind]}")
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        """Return an attribute that is one number or None; errors as of `number`."""
        return None if name in self.attributes and self.attributes[name] is None else self.number(name, kind)

    def numbers(self, name: str, count: int) -> list[int]:
        """Return an attribute that is a list, tuple or array of `count` integers.

        Raises:
            ModelFileError: there is no such attribute, or it is something else.
        """
        value = self.attributes.get(name)
        value = _array(value) if isinstance(value, Record) else value
        if not isinstance(value, list | tuple) or len(value) != count or any(type(one) is not int for one in value):
            raise self.fault(f"{self.shown} has {name} = {_short(value)}, expected {count} integers")
        return list(value)

    def require(self, **expected: Any) -> None:
        """Refuse the module unless each named attribute that it has is the expected one.

        Raises:
            ModelFileError: an attribute has another value, which asks for something that is not supported.
        """
        for name, value in expected.items():
            if name in self.attributes and self.attributes[name] != value:
                got = _short(self.attributes[name])
                raise self.fault(f"{self.shown} has {name} = {got}; only {value!r} is supported")

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters and buffers of the module and all inside it, by dotted name below this module.

        Raises:
            ModelFileError: one of them is not a tensor, or the modules are nested without end.
        """
        try:
            tensors = dict(module_tensors(self.record))
        except ValueError as error:
            raise self.fault(f"{self.shown} is not a valid network ({error})") from error
        return {name: value.float() if value.dtype in HALVES else value for name, value in tensors.items()}

    @property
    def shown(self) -> str:
        """The module's name for errors."""
        return self.name or f"the {self.class_name}"

    def fault(self, reason: str) -> ModelFileError:
        """Return the error of a network with a fault."""
        return ModelFileError(f"{self.path}: {visible(reason)}; is it another model's file?")


def read_network(path: Path, family: str, entry: str = ENTRY) -> StoredModule:
    """Return the network of a family in a published pickle.

    Args:
        path: the pickle.
        family: the family it has to be of, as `promptgen inspect` names it.
        entry: top-level key of the network; other entries are ignored.

    Raises:
        ModelFileError: the file cannot be read, or the entry is missing or is not a network of that family.
    """
    try:
        content = read_pickle(path, CLASSES)
    except ModelFileError as error:
        if (other := _what_else(path)) is not None:
            raise ModelFileError(f"{path}: expected a pickle of a {family}, {other}") from error
        raise
    items = plain_items(content)
    record = items.get(entry)
    if not isinstance(record, Record):
        content_names = (
            f"no {entry!r} among {visible(', '.join(sorted(map(str, items))))}" if items else type(content).__name__
        )
        raise ModelFileError(
            f"{path}: expected a {family} under {entry!r}, found {content_names}; is it another model's file?"
        )
    if (actual := family_of(record)) != family:
        what = f"a {actual}" if actual else f"an object of the class {visible(class_of(record)) or 'unknown'}"
        raise ModelFileError(
            f"{path}: expected a {family} under {entry!r}, found {what}; name the type of that file, or another file"
        )
    return StoredModule(record, path)


def read_published(path: Path, family: str) -> tuple[StoredModule | None, dict[str, Tensor], Mapping[str, Any]]:
    """Return the network of a family in a published file, or in safetensors of the same tensors.

    Args:
        path: the file.
        family: as of `read_network`.

    Returns:
        The network of a pickle, None for safetensors; its tensors by dotted name; and the metadata of safetensors.

    Raises:
        ModelFileError: as of `read_network`.
    """
    content = read_weights(path, partial(read_network, family=family))
    if isinstance(content, StoredModule):
        return content, content.tensors(), {}
    return None, state_of(content, ENTRY, path), content


def settings_of(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings of a network, which safetensors hold as JSON under `SETTINGS` in their metadata.

    Raises:
        ModelFileError: there are none.
    """
    return json_object(str(metadata.get(SETTINGS, "")), SETTINGS, path)


def _what_else(path: Path) -> str | None:
    """Return what a file is if not a plain pickle, and how to fix it; None if it is one, or cannot be read."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        contents = look_into(file)
    if contents.container in (PLAIN_PICKLE, "pickle", "unknown"):
        return None
    if contents.faults:
        return f"but {visible('; '.join(contents.faults))}; {contents.way_out}"
    network = name_network(contents)
    return f"found: {contents.container}{f' of {network}' if network else ''}; is it another model's file?"


def is_pickle(path: Path) -> bool:
    """Return whether a file begins like a pickle of protocol 3 to 5, and not like a file of an old ``torch.save``."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEAD)
    return head[:1] == b"\x80" and 3 <= head[1] <= 5 and STORAGE_MAGIC[2:] not in head


def module_tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a stored module and of all modules inside it, by dotted name.

    Raises:
        ValueError: one of them is not a tensor, or the modules are nested without end.
    """
    todo, visited = [("", root, 0)], 0
    while todo:
        prefix, module, depth = todo.pop()
        if visited > MAX_MODULES or depth > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_MODULES} modules, or a module that contains itself")
        visited += 1
        state = attributes(module)
        for group in ("_parameters", "_buffers"):
            for name, value in named_members(state, group):
                if not isinstance(value, Tensor):
                    raise ValueError(f"{prefix}{name} is a {type(value).__name__}, expected a tensor")
                yield f"{prefix}{name}", value
        todo += [(f"{prefix}{name}.", child, depth + 1) for name, child in named_members(state, "_modules")]


def named_members(state: Mapping[Any, Any], group: str) -> Iterator[tuple[str, Any]]:
    """Yield the named members of a group of a module's attributes, without those that are None.

    Raises:
        ValueError: the group is not a dict, or a name is not one.
    """
    members = state.get(group, {})
    if not isinstance(members, dict):
        raise ValueError(f"{group} is a {type(members).__name__}, expected a dict")
    for name, value in members.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{group} has the name {name!r:.80}, expected letters, digits and underscores")
        if value is not None:
            yield name, value


def _array(record: Record) -> list[Any] | None:
    """Return the numbers of a stored numpy array of one dimension; None if it is something else."""
    match record.state:
        case (_, (int(count),), Record(name="numpy.dtype", arguments=(str(code), *_), state=dtype), _, bytes(content)):
            big = isinstance(dtype, tuple) and dtype[1:2] == (">",)
            if code in NUMBERS and len(content) == count * struct.calcsize(NUMBERS[code]):
                return list(struct.unpack(f"{'>' if big else '<'}{count}{NUMBERS[code]}", content))
    return None


def _short(value: Any) -> str:
    """Return a value of a file for an error; anything that is not plain is shown by its type alone."""
    if isinstance(value, Reference):
        return value.name[:80]
    return f"{value!r:.80}" if isinstance(value, str | int | float | None) else type(value).__name__
