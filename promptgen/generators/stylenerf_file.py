"""Published StyleNeRF files: a generator's settings and its tensors by dotted name, from a pickle that is never run.

Every object of such a file comes with the source text of its class, for the original loader to execute. Here that text
stays text: objects are read as records (`promptgen.loading.restricted`), and of these only the settings and the tensors
are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from promptgen.errors import ModelFileError
from promptgen.loading.inspection.persistent import CLASSES, attributes
from promptgen.loading.published import json_object, read_weights, state_of
from promptgen.loading.restricted import read_pickle
from promptgen.loading.stack_machine import Record

SETTINGS = "_init_kwargs"
"""What a generator was built with, among its attributes."""

MAX_MODULES = 10_000
MAX_DEPTH = 32
_NAME = re.compile(r"\w{1,64}")
_INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")


def read_generator(path: Path, entry: str = "G_ema") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings that a published generator was built with, and its tensors by dotted name.

    Args:
        path: the pickle; or the generator's tensors as safetensors, with its settings as JSON under `SETTINGS` in the
            metadata.
        entry: its top-level key of the generator; other entries are ignored.

    Raises:
        ModelFileError: the file cannot be read, has no such entry, or the entry is not a network.
    """
    content = read_weights(path, partial(read_pickle, classes=CLASSES))
    if isinstance(content, dict) and isinstance(content.get(SETTINGS), str):
        return json_object(content[SETTINGS], SETTINGS, path), state_of(content, entry, path)
    if not isinstance(content, dict) or not isinstance(content.get(entry), Record):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ModelFileError(f"{path}: expected a network under {entry!r}, found {found}; is it another model's file?")
    state = attributes(content[entry])
    try:
        settings = _Plain()(state.get(SETTINGS))
        tensors = dict(_tensors(content[entry]))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: {entry!r} is not the network it should be ({error}); fetch it again") from error
    if not isinstance(settings, dict):
        raise ModelFileError(f"{path}: {entry!r} has no settings under {SETTINGS!r}; is it another model's file?")
    return settings, tensors


def _tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a module and of all below it, by dotted name."""
    todo = [("", root, 0)]
    for visited, (prefix, module, depth) in enumerate(_consumed(todo)):
        if visited > MAX_MODULES or depth > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_MODULES} modules, or one within itself")
        state = attributes(module)
        for group in ("_parameters", "_buffers"):
            for name, value in _named(state, group):
                if not isinstance(value, Tensor):
                    raise ValueError(f"{prefix}{name} is a {type(value).__name__}, expected a tensor")
                yield f"{prefix}{name}", value
        todo += [(f"{prefix}{name}.", child, depth + 1) for name, child in _named(state, "_modules")]


def _consumed(todo: list[Any]) -> Iterator[Any]:
    while todo:
        yield todo.pop()


def _named(state: Mapping[Any, Any], group: str) -> Iterator[tuple[str, Any]]:
    """Yield what a group of a module's attributes holds; None stands for a place left empty."""
    members = state.get(group, {})
    if not isinstance(members, dict):
        raise ValueError(f"{group} is a {type(members).__name__}, expected a dict")
    for name, value in members.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{group} has the name {name!r:.80}")
        if value is not None:
            yield name, value


class _Plain:
    """Turns settings into plain dicts, lists and values, whichever containers they were stored in.

    A DictConfig or ListConfig holds its content under `_content`, a node its value under `_val`; a value such as
    ``${spec.map}`` stands for the one under that dotted name in the outermost container. Containers of other classes
    that derive from dict or list come with items or elements.
    """

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}  # a file may refer to one object any number of times

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("its settings are nested too deeply")
        if not isinstance(value, dict | list | tuple | Record):
            return value
        if id(value) not in self.done:
            self.done[id(value)] = self._converted(value, depth + 1)
        return self.done[id(value)]

    def _converted(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: self(inner, depth) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self(inner, depth) for inner in value]
        state = value.state if isinstance(value.state, dict) else {}
        for key in ("_content", "_val"):
            if key in state:
                return self(self._resolved(state, state[key]), depth)
        return self(value.elements if value.elements else value.items, depth)

    def _resolved(self, state: Mapping[Any, Any], value: Any) -> Any:
        """Return what a reference to another setting stands for, and any other value as it is."""
        match = _INTERPOLATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return value
        for _ in range(MAX_DEPTH):  # up to the outermost container
            outer = attributes(state.get("_parent"))
            if not outer:
                break
            state = outer
        found: Any = state.get("_content")
        for key in match[1].split("."):
            found = attributes(found).get("_content") if isinstance(found, Record) else found
            found = found.get(key) if isinstance(found, dict) else None
        return value if found is None else found
