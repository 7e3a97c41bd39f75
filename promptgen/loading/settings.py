"""The settings in a weight file, as the configuration of a network. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from promptgen.errors import ConfigError, ModelFileError
from promptgen.strict import validate

M = TypeVar("M", bound=BaseModel)


def supported_config(
    model: type[M], content: Mapping[str, Any], source: Path, family: str, *, strict: bool = True
) -> M:
    """Return the configuration of a network that a file describes.

    Args:
        model: class of the configuration.
        content: its fields.
        source: the file, for errors.
        family: what the network has to be, such as ``StyleGAN3``.
        strict: whether a number must be written as a number.

    Raises:
        ModelFileError: a field is unknown, missing or out of range.
    """
    try:
        return validate(model, content, strict=strict)
    except ConfigError as error:
        raise ModelFileError(f"{source}: not a supported {family}: {error}; is it another model's file?") from error
