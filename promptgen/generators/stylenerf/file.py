"""Read a generator's settings and tensors from a published StyleNeRF file, without running its pickle.

Each object in such a file carries the source code of its class, which the original loader executes. This module never
executes it: it reads objects as records (`promptgen.loading.restricted`) and uses only their settings and tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from promptgen.errors import ModelFileError
from promptgen.loading.inspection.persistent import CLASSES, attributes
from promptgen.loading.published import json_object, read_weights, state_of
from promptgen.loading.restricted import read_pickle
from promptgen.loading.stack_machine import Record
from promptgen.loading.stored_modules import MAX_DEPTH, module_tensors

ENTRY = "G_ema"
"""Top-level key of the generator."""

SETTINGS = "_init_kwargs"
"""Attribute that holds a generator's constructor arguments."""

_INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")


def read_generator(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the constructor arguments of a published generator, and its tensors by dotted name.

    Args:
        path: pickle file, or safetensors file of the generator's tensors with its settings as JSON under `SETTINGS` in
            the metadata. Of its entries, only that of the generator, `ENTRY`, is read.

    Raises:
        ModelFileError: the file cannot be read, has no such entry, or the entry is not a network.
    """
    content = read_weights(path, partial(read_pickle, classes=CLASSES))
    if isinstance(content, dict) and isinstance(content.get(SETTINGS), str):
        return json_object(content[SETTINGS], SETTINGS, path), state_of(content, ENTRY, path)
    if not isinstance(content, dict) or not isinstance(content.get(ENTRY), Record):
        entries = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        reason = f"expected a network under {ENTRY!r}, found {entries}"
        raise ModelFileError(f"{path}: {reason}; is it another model's file?")
    state = attributes(content[ENTRY])
    try:
        settings = _Plain()(state.get(SETTINGS))
        tensors = dict(module_tensors(content[ENTRY]))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: {ENTRY!r} is not a valid network ({error}); fetch the file again") from error
    if not isinstance(settings, dict):
        raise ModelFileError(f"{path}: {ENTRY!r} has no settings under {SETTINGS!r}; is it another model's file?")
    return settings, tensors


class _Plain:
    """Converts settings from any of the stored container types to plain dicts, lists and values.

    A DictConfig or ListConfig stores its content under `_content`, a node its value under `_val`. A value such as
    ``${spec.map}`` refers to the value under that dotted name in the outermost container. Records of other subclasses
    of dict or list have items or elements.
    """

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}  # by object id: a file may refer to an object many times

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
        """Return the setting that a reference points to, and any other value unchanged."""
        match = _INTERPOLATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return value
        for _ in range(MAX_DEPTH):  # climb to the outermost container
            outer = attributes(state.get("_parent"))
            if not outer:
                break
            state = outer
        target: Any = state.get("_content")
        for key in match[1].split("."):
            target = attributes(target).get("_content") if isinstance(target, Record) else target
            target = target.get(key) if isinstance(target, dict) else None
        return value if target is None else target
