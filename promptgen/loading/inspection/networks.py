"""Recognise the network of a weight file by the names and shapes of its tensors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from promptgen.loading.inspection.persistent import name_pickle
from promptgen.loading.inspection.torch_files import Contents

FORMAT = "promptgen"
DIFFAE = "diffusion autoencoder"
ENTRIES = ("state_dict", "g_ema", "E_flame", "ema_model", "model", "net", "module", "_orig_mod")
"""Leading parts of keys: entries of published files and of trainings, and wrappers."""

KEYS = {
    f"{DIFFAE}, with its latent network": ["latent_net."],
    DIFFAE: ["time_embed."],
    f"latent codes of a {DIFFAE}": ["conds", "conds_mean", "conds_std"],
    "NVAE": ["prior_ftr0"],
    "ArcFace": ["input_layer.0.weight", "output_layer.3.weight"],
    "DECA": ["encoder.conv1.weight"],
}
"""Keys that only one network has; a trailing dot marks a prefix of such keys."""


def name_network(contents: Contents) -> str | None:
    """Return the name of the network in a file, with its size if the file states it; None if it is not recognised."""
    if FORMAT in contents.metadata:
        return _own(contents.metadata[FORMAT])
    if contents.scan and (family := name_pickle(contents.scan)):
        return family
    shapes = {
        ".".join(itertools.dropwhile(ENTRIES.__contains__, tensor.key.split("."))): tensor.shape  # without wrappers
        for tensor in contents.tensors
    }
    for name, keys in KEYS.items():
        if all(key in shapes or (key[-1] == "." and any(k.startswith(key) for k in shapes)) for key in keys):
            return name
    return _sized(shapes)


def _sized(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the name of a network that is recognised by its shapes, with its size."""
    if {"input.input", "to_rgb1.conv.weight"} <= shapes.keys():
        levels = len({key.split(".")[1] for key in shapes if key.startswith("to_rgbs.")})
        return f"StyleGAN2 of {4 << levels} pixels" if levels < 16 else "StyleGAN2"
    classes = shapes.get("embeddings.weight")
    if classes and "generator.gen_z.weight_orig" in shapes:
        return f"BigGAN-deep with {classes[-1]} classes"
    if "conv1.weight" in shapes and shapes.get("fc.weight", ())[:1] == (18,):
        return "FairFace, 18 outputs"
    if "resnet.conv1.weight" in shapes and shapes.get("fc.weight", ())[:1] == (1,):
        return "a CelebA attribute"
    names = [key.rpartition("class_type2lambda.")[2] for key in shapes if "class_type2lambda." in key]
    if names:
        return f"fitted multipliers of {', '.join(names)}"
    embedding = shapes.get("token_embedding.weight", shapes.get("text.token_embedding.weight"))
    if embedding and any(key.startswith("visual.") for key in shapes):
        return f"CLIP with open_clip's names, text width {embedding[-1]}"
    return None


def _own(text: str) -> str:
    """Return the description of one of this library's own files, from the config inside it."""
    try:
        config = dict(json.loads(text)["config"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a file of this library whose config is damaged"
    if config.get("kind") == "chain":
        count = len(config["flows"]) if isinstance(config.get("flows"), list) else 0
        flows = f"{count} flow{'' if count == 1 else 's'}"
        return f"a chain of {flows} of this library on the generator {_short(config.get('generator'))}"
    if "clip" in config:
        return f"a small CLIP model of this library: {_short(config['clip'])}"
    return f"a network of this library: {_short(config)}"


def _short(content: Any) -> str:
    text = json.dumps(content)
    return text if len(text) <= 160 else f"{text[:160]}..."
