"""Import open_clip, torch-fidelity and diffusers, even if the compiled operators of torchvision are missing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from promptgen.errors import ConfigError, one_line

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


def import_diffusers() -> Any:
    """Return the module diffusers. Its pipelines import transformers, which imports torchvision if that is installed.

    Raises:
        ConfigError: diffusers or transformers is not installed, or one of them cannot be imported.
    """
    missing = [name for name in ("diffusers", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"a generator of type diffusers needs {' and '.join(missing)}, not installed here: "
            "run `pip install -r requirements-diffusers.txt`"
        )
    try:
        with _usable_torchvision():
            importlib.import_module("transformers").utils.is_torchvision_available()  # which remembers the answer
            module = importlib.import_module("diffusers")
            module.DiffusionPipeline  # noqa: B018, its modules are imported only when they are first asked for
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"diffusers cannot be imported: {one_line(error)}; run `pip install -r requirements-diffusers.txt`"
        ) from error
    return module


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


@contextmanager
def _usable_torchvision() -> Iterator[None]:
    """Inside the block, torchvision either can be imported or counts as not installed."""
    try:
        import_torchvision()
    except Exception:  # whatever a torchvision for another torch raises
        before = sys.modules.get("torchvision")
        sys.modules["torchvision"] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            if before is None:
                del sys.modules["torchvision"]
            else:
                sys.modules["torchvision"] = before
    else:
        yield
