"""Importing open_clip, also where the compiled operators of torchvision, which it imports, are missing."""

from __future__ import annotations

import importlib
from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # the operators exist as long as their library does


def import_open_clip() -> Any:
    """Return the module open_clip; it takes seconds to import, so only what needs it should ask for it."""
    import_torchvision()
    return importlib.import_module("open_clip")


def import_torchvision() -> None:
    """Import torchvision; where its compiled extension cannot load, declare the operators that the import asks for.

    The extension of a torchvision built for CUDA does not load beside a CPU-only torch. The operators are declared, not
    implemented: calling one still fails.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _libraries or "operator torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            library.define(schema)  # type: ignore[no-untyped-call]
        _libraries.append(library)
        importlib.import_module("torchvision")
