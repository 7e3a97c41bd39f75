"""Pickles of whole generator objects, most with the source text of their classes: allowed names and recognition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from promptgen.loading.inspection.pickles import Scan
from promptgen.loading.stack_machine import Record, Reference

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
"""Function whose call stores an object together with the source text of its class."""

PLAIN = ("bool", "bytes", "float", "frozenset", "int", "list", "set", "str")
PLAIN_NAMES = frozenset(f"builtins.{name}" for name in PLAIN)
"""Names that any file may use; they become records."""

REBUILT = "copyreg._reconstructor"
"""Function whose call makes an object of a class without its constructor."""

R3GAN_PACKAGES = {"R3GAN": "training.networks", "BaselineGAN": "training.networks_baseline"}
"""Package of R3GAN's layers, and the module of its networks that goes with it: those of today and of its early code."""

R3GAN_NETWORKS = (
    *("Generator", "GeneratorStage", "GenerativeBasis", "UpsampleLayer", "ResidualBlock", "Convolution"),
    *("Discriminator", "DiscriminatorStage", "DiscriminativeBasis", "DownsampleLayer", "MultichannelDiscriminator"),
)
R3GAN_CLASSES = frozenset(
    {
        *(f"{package}.Networks.{name}" for package in R3GAN_PACKAGES for name in R3GAN_NETWORKS),
        *(
            f"{package}.Resamplers.{kind}{direction}sampler{build}"
            for package in R3GAN_PACKAGES
            for kind in ("Interpolative", "Inplace")
            for direction in ("Up", "Down")
            for build in ("CUDA", "Reference", "")
        ),
        *(
            f"{package}.FusedOperators.BiasedActivation{build}"
            for package in R3GAN_PACKAGES
            for build in ("CUDA", "Reference", "")
        ),
        *(f"{module}.{name}" for module in R3GAN_PACKAGES.values() for name in ("Generator", "Discriminator")),
        *(f"torch.{name}" for name in ("float32", "bfloat16", "float16", "float64")),
    }
)
"""Plain classes of R3GAN, which its files name without any source text."""

CLASSES = frozenset(
    {
        PERSISTENT,
        *(REBUILT, "builtins.object"),
        *R3GAN_CLASSES,
        "dnnlib.util.EasyDict",
        *(f"torch.nn.modules.container.{name}" for name in ("ModuleDict", "ModuleList", "Sequential")),
        *(f"torch.nn.modules.activation.{name}" for name in ("LeakyReLU", "ReLU", "Sigmoid", "Tanh")),
        *("torch.nn.modules.linear.Linear", "torch.nn.modules.linear.Identity", "torch.nn.modules.conv.Conv2d"),
        *("torch.Size", "torch.device", "typing.Any"),
        *("numpy.ndarray", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
        *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
        *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "String")),
    }
)
"""Names that such a file may use in addition to plain data and tensors; they become records."""

MADE = frozenset(
    {
        *("builtins.dict", "collections.OrderedDict", "collections.defaultdict"),
        *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
        *("torch.storage._load_from_bytes", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"),
    }
)
"""Functions that make plain data and tensors; `promptgen.loading.restricted` replaces each by its own."""

STYLENERF, STYLEGAN2, STYLEGAN3, R3GAN = "StyleNeRF", "StyleGAN2-ADA", "StyleGAN3", "R3GAN"
FAMILIES = (STYLENERF, STYLEGAN2, STYLEGAN3, R3GAN)
"""Families of generators whose pickles have a reader here."""

TENSORFLOW = "dnnlib.tflib.network."
"""Prefix of the classes of StyleGAN pickles for TensorFlow."""

LARGEST_STATED = 1 << 16
"""Largest number of pixels or classes that a description repeats."""


def name_pickle(content: Scan) -> str | None:
    """Return the family of the generator object in a pickle, recognised by its modules; None if there is none."""
    if any(name.startswith(TENSORFLOW) for name in content.names):
        return "a StyleGAN pickle for TensorFlow"
    plain = any(name.startswith(f"{package}.Networks.") for package in R3GAN_PACKAGES for name in content.names)
    if PERSISTENT not in content.names and not plain:
        return None
    networks = plain_items(content.root)
    generator = networks.get("G_ema", networks.get("G"))
    family = family_of(generator)
    if family is None:
        return "a pickle of R3GAN's classes" if plain else "a pickle of objects with their own source text"
    facts = attributes(generator)
    size, classes = (_stated(facts.get(name)) for name in ("img_resolution", "c_dim"))
    shown = [f" of {size} pixels" if size else "", f", {classes} classes" if classes else ""]
    early = any(name.startswith("BaselineGAN.") for name in content.names)
    return f"{family} pickle{''.join(shown)}{', with the names of its early code' if early else ''}"


def family_of(generator: Any) -> str | None:
    """Return the family of a stored generator, recognised by its modules; None if it is of no known one."""
    layers = _modules(_modules(generator).get("synthesis"))
    if "fg_nerf" in layers:
        return STYLENERF
    if "input" in layers:
        return STYLEGAN3
    if any(re.fullmatch(r"b\d+", str(name)) for name in layers):
        return STYLEGAN2
    return R3GAN if {"MainLayers", "AggregationLayer"} <= _modules(_modules(generator).get("Model")).keys() else None


def class_of(record: Record) -> str:
    """Return the name of the class of a stored object, without its package."""
    name: Any = record.name
    if name == PERSISTENT and record.arguments:
        name = plain_items(record.arguments[0]).get("class_name")
    elif name == REBUILT and record.arguments and isinstance(record.arguments[0], Reference):
        name = record.arguments[0].name
    return name.rpartition(".")[2] if isinstance(name, str) else ""


def attributes(record: Any) -> Mapping[Any, Any]:
    """Return the attributes of a stored object; empty if it has none."""
    state = record.state if isinstance(record, Record) else None
    if isinstance(record, Record) and record.name == PERSISTENT and record.arguments:
        state = plain_items(record.arguments[0]).get("state")
    return state if isinstance(state, dict) else {}


def plain_items(container: Any) -> Mapping[Any, Any]:
    """Return the items of a stored dict, of any class; empty if it is none."""
    items = container.items if isinstance(container, Record) else container
    return items if isinstance(items, dict) else {}


def _modules(record: Any) -> Mapping[Any, Any]:
    return plain_items(attributes(record).get("_modules"))


def _stated(value: Any) -> int:
    """Return a size that a file states; 0 if it is none or absurd."""
    return value if type(value) is int and 0 < value < LARGEST_STATED else 0
