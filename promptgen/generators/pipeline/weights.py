"""Load the parts of a pipeline: fixed classes, safetensors only, every weight accounted for, no code of the folder."""

from __future__ import annotations

import importlib
import json
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from promptgen.errors import ConfigError, ModelFileError, PromptGenError, one_line
from promptgen.generators.pipeline.folder import PipelineFolder
from promptgen.loading.published import DAMAGE
from promptgen.networks.torchvision_ops import import_diffusers

TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
"""Types of numbers by their names in safetensors."""

LONGEST_HEADER = 100 << 20
"""Largest header of a safetensors file, bytes; the format has the same limit."""


def load_part(folder: PipelineFolder, part: str) -> Any:
    """Return a part of a pipeline, such as ``unet``, in the precision of its own file.

    Raises:
        ConfigError: its class is none that this part may have.
        ModelFileError: it cannot be read, or weights are missing or left over.
    """
    is_text = part in folder.encoders or part in folder.encoders.values()
    part_class = _text_class(folder, part) if is_text else getattr(import_diffusers(), str(folder.part_class(part)))
    place = {"subfolder": part, "local_files_only": True}
    with reading(folder.path / part):
        if part == "scheduler" or part in folder.encoders.values():
            return part_class.from_pretrained(folder.path, **place)
        number_type = {"dtype" if is_text else "torch_dtype": type_of(folder.weights(part))}
        network, report = part_class.from_pretrained(
            folder.path, **place, **number_type, use_safetensors=True, variant=folder.variant, output_loading_info=True
        )
    _require_complete(folder.path / part, report)
    return network.eval()


def _text_class(folder: PipelineFolder, part: str) -> Any:
    """Return the class of a text encoder or a tokenizer, which is one of the library transformers."""
    transformers, name = importlib.import_module("transformers"), str(folder.part_class(part))
    base = transformers.PreTrainedModel if part in folder.encoders else transformers.PreTrainedTokenizerBase
    part_class = getattr(transformers, name, None)
    if not (isinstance(part_class, type) and issubclass(part_class, base)):
        raise ConfigError(f"{folder.path}: {part} is a {name}, expected a {base.__name__} of transformers")
    return part_class


def type_of(files: list[Path]) -> torch.dtype:
    """Return the type of most numbers in safetensors files.

    Raises:
        ModelFileError: a file is damaged, or has numbers of no type that weights have.
    """
    counts: Counter[str] = Counter()
    for file in files:
        for entry in _header(file).values():
            if isinstance(entry, dict) and "data_offsets" in entry:
                start, end = entry["data_offsets"]
                counts[str(entry.get("dtype"))] += end - start
    named = {name: count for name, count in counts.items() if name in TYPES}
    if not named:
        raise ModelFileError(
            f"{files[0]} has no weights of type {', '.join(TYPES)}, found {', '.join(counts) or 'none'}"
        )
    return TYPES[max(named, key=lambda name: named[name])]


def _header(file: Path) -> dict[str, Any]:
    with reading(file), file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > LONGEST_HEADER:
            raise ValueError(f"its header claims {length} bytes")
        header: dict[str, Any] = json.loads(stream.read(length))
        return header


def _require_complete(path: Path, report: Any) -> None:
    """Check that every weight of a network came from its file, and every weight in the file was used."""
    keys = {
        name: sorted(map(str, report.get(f"{name}_keys") or [])) for name in ("missing", "mismatched", "unexpected")
    }
    faults = [f"{len(names)} {fault} ({names[0]})" for fault, names in keys.items() if names]
    if errors := report.get("error_msgs"):
        faults.append(" ".join(str(errors[0]).split())[:200])
    if faults:
        raise ModelFileError(
            f"the weights in {path} do not fit its config: {', '.join(faults)}; save the pipeline again"
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever diffusers and transformers raise about a file into one line.

    Raises:
        ModelFileError: something inside the block failed.
    """
    try:
        yield
    except PromptGenError:
        raise
    except (*DAMAGE, ImportError) as error:
        raise ModelFileError(f"{path} cannot be read: {one_line(error)}") from error
