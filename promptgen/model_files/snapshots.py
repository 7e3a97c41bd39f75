"""A pipeline of the Hugging Face hub at one commit, in the hub's own cache."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from promptgen.errors import ModelFileError, UnreachableError, one_line

SETTINGS = ("json", "txt", "model")
"""Endings of the files beside the weights: configs, vocabularies and tokenizers."""

LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of pipelines that make no image."""


def snapshot(repository: str, revision: str, variant: str | None = None, *, offline: bool = False) -> Path | None:
    """Return the folder of a pipeline of the hub at one commit; what is missing is downloaded.

    Only configs, vocabularies and weights as safetensors are taken, and of the weights one variant.

    Args:
        repository: owner and name.
        revision: the commit.
        variant: part of the names of weight files, such as ``fp16``; None for the plain ones.
        offline: whether to take only what the cache has; the result is None if it lacks something.

    Raises:
        UnreachableError: the hub does not answer.
        ModelFileError: it has no such pipeline, or refuses it.
    """
    index = _fetch(repository, revision, ["model_index.json"], offline=offline)
    if index is None:
        return None
    content: Any = json.loads((index / "model_index.json").read_text(encoding="utf-8"))
    named = content.items() if isinstance(content, dict) else ()
    parts = [name for name, entry in named if isinstance(entry, list) and all(entry) and name not in LEFT_OUT]
    settings = [f"{part}/*.{ending}" for part in parts for ending in SETTINGS]
    stems = [f"{part}/{stem}" for part in parts for stem in ("model", "diffusion_pytorch_model")]
    ending = f".{variant}" if variant else ""
    weights = [f"{stem}{form}.safetensors" for stem in stems for form in (ending, f"{ending}-*-of-*")]
    unwanted = None if variant else ["*.fp16-*", "*.bf16-*", "*.non_ema-*"]
    folder = _fetch(repository, revision, [*settings, *weights], unwanted, offline=offline)
    return folder if folder and all(any((folder / part).glob("*")) for part in parts) else None


def _fetch(
    repository: str, revision: str, wanted: Iterable[str], unwanted: Iterable[str] | None = None, *, offline: bool
) -> Path | None:
    """Return the folder of a commit with the files that match a pattern."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    place = f"hub:{repository} at {revision[:12]}"
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(wanted),
            ignore_patterns=None if unwanted is None else list(unwanted),
            local_files_only=offline,
        )
    except LocalEntryNotFoundError as error:
        if offline:
            return None
        raise UnreachableError(f"{place} cannot be fetched: the hub does not answer, and the cache lacks it") from error
    except HfHubHTTPError as error:
        raise ModelFileError(
            f"{place} cannot be fetched: {one_line(error)}; are its name and revision right?"
        ) from error
    except OSError as error:
        raise UnreachableError(f"{place} cannot be fetched: {one_line(error)}") from error
    return Path(folder)
