"""Embeddings of a prompt: read by a pipeline's own text encoders, or from a file."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from promptgen.errors import ConfigError, ModelFileError
from promptgen.generators.pipeline.folder import PipelineFolder
from promptgen.generators.pipeline.weights import load_part, reading
from promptgen.loading.published import DAMAGE
from promptgen.networks.torchvision_ops import import_diffusers

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "StableDiffusionPipeline": ("prompt_embeds", "negative_prompt_embeds"),
    "StableDiffusionXLPipeline": (
        *("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
    ),
    "LatentConsistencyModelPipeline": ("prompt_embeds",),
    "SanaSprintPipeline": ("prompt_embeds", "prompt_attention_mask"),
    "FluxPipeline": ("prompt_embeds", "pooled_prompt_embeds"),
}
"""What the `encode_prompt` of each pipeline returns, in order, as far as it is used."""


def encode(
    folder: PipelineFolder, prompts: Sequence[str], negative_prompt: str | None, *, guided: bool
) -> dict[str, Tensor]:
    """Return the embeddings of prompts, by the names of the pipeline's arguments, one row each.

    Args:
        folder: the pipeline.
        prompts: what the images should show.
        negative_prompt: what guidance moves away from; None means the pipeline's default.
        guided: whether there is guidance, which needs negative embeddings.

    Raises:
        ConfigError: the pipeline has no text encoder.
        ModelFileError: a text encoder cannot be read.
    """
    missing = [encoder for encoder in folder.family.encoders if encoder not in folder.encoders]
    if missing:
        raise ConfigError(
            f"{folder.path} has no {' and no '.join(missing)}, so it cannot read a prompt: give `embeddings`, a "
            f"safetensors file with {', '.join(_needed(folder, guided=guided))}, in its place"
        )
    diffusers = import_diffusers()
    pipeline_class = getattr(diffusers, folder.pipeline_class)
    encode_prompt = pipeline_class(**_parts(folder, pipeline_class)).encode_prompt
    names = inspect.signature(encode_prompt).parameters
    defaults = inspect.signature(pipeline_class.__call__).parameters
    arguments = {
        name: defaults[name].default
        for name in names
        if name in defaults and defaults[name].default is not inspect.Parameter.empty
    }
    arguments |= {"device": torch.device("cpu"), "num_images_per_prompt": 1}
    wanted = {"negative_prompt": negative_prompt, "do_classifier_free_guidance": guided}
    arguments |= {name: value for name, value in wanted.items() if name in names}
    with torch.no_grad(), reading(folder.path):
        outputs = [encode_prompt(**{**arguments, "prompt": prompt}) for prompt in prompts]
    named = [dict(zip(OUTPUTS[folder.pipeline_class], output, strict=False)) for output in outputs]
    # Every family pads its prompts to one length, so that rows fit together.
    return {name: torch.cat([row[name].detach() for row in named]) for name in _needed(folder, guided=guided)}


def _parts(folder: PipelineFolder, pipeline_class: Any) -> dict[str, Any]:
    """Return the arguments of a pipeline of text encoders alone."""
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(pipeline_class.__init__).parameters.items():
        if name == "self":
            continue
        if name in (*folder.encoders, *folder.encoders.values()):
            arguments[name] = load_part(folder, name)
        elif parameter.default is inspect.Parameter.empty:
            arguments[name] = None
        elif isinstance(folder.index.get(name), bool | int | float | str):
            arguments[name] = folder.index[name]
    if "requires_safety_checker" in inspect.signature(pipeline_class.__init__).parameters:
        arguments["requires_safety_checker"] = False
    return arguments


def read_embeddings(path: Path, folder: PipelineFolder, *, guided: bool) -> dict[str, Tensor]:
    """Return embeddings from a safetensors file, by the names of the pipeline's arguments, one row each.

    Args:
        path: the file, with one tensor for each name; a first dimension of 1 may be left out.
        folder: the pipeline.
        guided: whether there is guidance, which needs negative embeddings.

    Raises:
        ModelFileError: the file cannot be read, or lacks an embedding.
    """
    needed = _needed(folder, guided=guided)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except DAMAGE as error:
        raise ModelFileError(f"{path} cannot be read as safetensors, expected {', '.join(needed)}: {error}") from error
    if missing := [name for name in needed if name not in tensors]:
        raise ModelFileError(f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(tensors)) or 'nothing'}")
    return {name: _row(tensors[name], name, path) for name in needed}


def require_fit(embeddings: Mapping[str, Tensor], folder: PipelineFolder, source: str) -> None:
    """Check that embeddings have the widths that the network takes.

    Raises:
        ModelFileError: one has another width, or is not finite.
    """
    widths = dict(_widths(folder))
    for name, value in embeddings.items():
        width = next((width for ending, width in widths.items() if name.endswith(ending)), None)
        if width is not None and value.shape[-1] != width:
            raise ModelFileError(f"{source}: {name} has width {value.shape[-1]}, the network takes {width}")
        if not bool(value.isfinite().all()):
            raise ModelFileError(f"{source}: {name} is not finite")


def _widths(folder: PipelineFolder) -> Iterator[tuple[str, int]]:
    """Yield the width of each kind of embedding that the network's config states, by the end of its name."""
    config = folder.config(folder.family.network)
    pooled = config.get("pooled_projection_dim")
    if folder.is_xl and config.get("addition_embed_type") == "text_time":
        numbers = 6 * (config.get("addition_time_embed_dim") or 0)
        pooled = (config.get("projection_class_embeddings_input_dim") or 0) - numbers
    if isinstance(pooled, int):
        yield "pooled_prompt_embeds", pooled
    width = config.get(folder.family.text_width)
    if isinstance(width, int):
        yield "prompt_embeds", width


def _needed(folder: PipelineFolder, *, guided: bool) -> list[str]:
    return [name for name in OUTPUTS[folder.pipeline_class] if guided or not name.startswith("negative")]


def _row(value: Tensor, name: str, path: Path) -> Tensor:
    """Return one embedding with a first dimension of 1."""
    dimensions = 3 if name.endswith("prompt_embeds") and "pooled" not in name else 2
    value = value[None] if value.ndim == dimensions - 1 else value
    if value.ndim != dimensions or len(value) != 1:
        raise ModelFileError(
            f"{path}: {name} has shape {tuple(value.shape)}, expected one row of {dimensions} dimensions"
        )
    return value
