"""Import open_clip and torch-fidelity, even if the compiled operators of torchvision are missing."""

from __future__ import annotations

import importlib
from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # the operators exist only as long as their library


def import_open_clip() -> Any:
    """Return the module open_clip. Importing it takes seconds, so call this only where it is needed."""
    import_torchvision()
    return importlib.import_module("open_clip")


def import_fidelity(module: str) -> Any:
    """Return a module of torch-fidelity, such as ``"metric_fid"``. It imports torchvision, which takes seconds."""
    import_torchvision()
    return importlib.import_module(f"torch_fidelity.{module}")


def import_torchvision() -> None:
    """Import torchvision; if its compiled extension does not load, declare the operators that the import expects.

    The extension of a torchvision built for CUDA does not load next to a CPU-only torch. The operators are declared but
    not implemented, so calling one still fails.
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
