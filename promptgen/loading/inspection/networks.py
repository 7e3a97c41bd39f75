"""Which network a file looks like, by the names and shapes of its tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promptgen.loading.inspection.containers import Contents
from promptgen.loading.inspection.records import Scan, Table

FORMAT = "promptgen"
DIFFAE = "diffusion autoencoder"
PERSISTENCE = "torch_utils.persistence._reconstruct_persistent_obj"
STYLENERF = frozenset(
    {
        PERSISTENCE,
        *(f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str")),
        *("collections.OrderedDict", "collections.defaultdict", "dnnlib.util.EasyDict", "typing.Any"),
        *("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
        *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
        *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "String")),
        *("torch.Size", "torch.device", "torch.storage._load_from_bytes"),
        *("torch._utils._rebuild_parameter", "torch._utils._rebuild_tensor_v2"),
        *(f"torch.nn.modules.container.{name}" for name in ("ModuleDict", "ModuleList", "Sequential")),
        *(f"torch.nn.modules.activation.{name}" for name in ("LeakyReLU", "ReLU", "Sigmoid", "Tanh")),
        *("torch.nn.modules.linear.Linear", "torch.nn.modules.linear.Identity", "torch.nn.modules.conv.Conv2d"),
    }
)
"""What a StyleNeRF file may name: `promptgen.generators.stylenerf_file`, which needs torch, makes records of it."""

Shapes = Mapping[str, tuple[int, ...]]


def name_network(found: Contents) -> str | None:
    """Return what a file's network is called, with its size where that is in the file; None if it is not known."""
    if FORMAT in found.metadata:
        return _own(found.metadata[FORMAT])
    if is_persistent(found.scan):
        return "StyleNeRF, or another generator saved with its own source text"
    shapes = {tensor.key: tensor.shape for tensor in found.tensors}
    return next((name for describe in _DESCRIBERS if (name := describe(shapes))), None)


def is_persistent(found: Scan | None) -> bool:
    """Say whether a pickle holds objects together with the source text of their classes."""
    return found is not None and PERSISTENCE in found.globals and isinstance(found.root, Table)


def _own(text: str) -> str:
    """Return what one of our own files is, by the config inside it."""
    try:
        config = dict(json.loads(text)["config"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "a file of this library whose config is damaged"
    if config.get("kind") == "chain":
        flows, generator = _count(config.get("flows")), _short(config.get("generator"))
        return f"a chain of {flows} of this library on the generator {generator}"
    if "clip" in config:
        return f"a small CLIP model of this library: {_short(config['clip'])}"
    return f"a network of this library: {_short(config)}"


def _count(flows: Any) -> str:
    number = len(flows) if isinstance(flows, list) else 0
    return f"{number} flow" if number == 1 else f"{number} flows"


def _short(content: Any, length: int = 160) -> str:
    text = json.dumps(content)
    return text if len(text) <= length else f"{text[:length]}..."


def _stylegan2(shapes: Shapes) -> str | None:
    if not {"g_ema.input.input", "g_ema.to_rgb1.conv.weight"} <= shapes.keys():
        return None
    levels = len({key.split(".")[2] for key in shapes if key.startswith("g_ema.to_rgbs.")})
    return f"StyleGAN2 of {4 << levels} pixels" if levels < 16 else "StyleGAN2"


def _biggan(shapes: Shapes) -> str | None:
    if not {"embeddings.weight", "generator.gen_z.weight_orig"} <= shapes.keys():
        return None
    return f"BigGAN-deep with {shapes['embeddings.weight'][-1]} classes"


def _fairface(shapes: Shapes) -> str | None:
    head = shapes.get("fc.weight", ())
    return f"FairFace, {head[0]} outputs" if "conv1.weight" in shapes and head[:1] == (18,) else None


def _celeba(shapes: Shapes) -> str | None:
    head = shapes.get("model.fc.weight", ())
    return "a CelebA attribute" if "model.resnet.conv1.weight" in shapes and head[:1] == (1,) else None


def _clip(shapes: Shapes) -> str | None:
    for prefix in ("", "module.", "state_dict.", "state_dict.module."):
        embedding = shapes.get(f"{prefix}token_embedding.weight", shapes.get(f"{prefix}text.token_embedding.weight"))
        if embedding and any(key.startswith(f"{prefix}visual.") for key in shapes):
            return f"CLIP with open_clip's names, text width {embedding[-1]}"
    return None


def _beta(shapes: Shapes) -> str | None:
    names = [key.rpartition("class_type2lambda.")[2] for key in shapes if "class_type2lambda." in key]
    return f"fitted multipliers of {', '.join(names)}" if names else None


def _with_keys(name: str, *needed: str) -> Callable[[Shapes], str | None]:
    """Return what names a network by keys that it alone has."""
    return lambda shapes: name if set(needed) <= shapes.keys() else None


def _diffae(shapes: Shapes) -> str | None:
    if any(key.startswith("state_dict.ema_model.latent_net.") for key in shapes):
        return f"{DIFFAE}, with its latent network"
    if any(key.startswith("state_dict.ema_model.time_embed.") for key in shapes):
        return DIFFAE
    return None


_DESCRIBERS: Sequence[Callable[[Shapes], str | None]] = (
    _stylegan2,
    _biggan,
    _with_keys("NVAE", "state_dict.prior_ftr0"),
    _diffae,
    _with_keys(f"latent codes of a {DIFFAE}", "conds", "conds_mean", "conds_std"),
    _fairface,
    _celeba,
    _with_keys("ArcFace", "input_layer.0.weight", "output_layer.3.weight"),
    _with_keys("DECA", "E_flame.encoder.conv1.weight"),
    _beta,
    _clip,
)
