"""Pickles of whole generator objects that contain the source text of their classes: allowed names and recognition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from promptgen.loading.inspection.pickles import Scan
from promptgen.loading.stack_machine import Record

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
"""Function whose call stores an object together with the source text of its class."""

PLAIN = ("bool", "bytes", "float", "frozenset", "int", "list", "set", "str")
PLAIN_NAMES = frozenset(f"builtins.{name}" for name in PLAIN)
"""Names that any file may use; they become records."""

CLASSES = frozenset(
    {
        PERSISTENT,
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

STYLENERF = "StyleNeRF"
OTHER_PACKAGES = {
    "R3GAN.Networks.": "an R3GAN pickle",
    "BaselineGAN.Networks.": "an R3GAN pickle with the names of its early code",
    "dnnlib.tflib.network.": "a StyleGAN pickle for TensorFlow",
}
"""Families whose classes are imported by name, keyed by the prefix of these names."""


def name_pickle(content: Scan) -> str | None:
    """Return the family of the generator object in a pickle, recognised by its modules; None if there is none."""
    for start, family in OTHER_PACKAGES.items():
        if any(name.startswith(start) for name in content.names):
            return family
    if PERSISTENT not in content.names:
        return None
    networks = _items(content.root)
    generator = networks.get("G_ema", networks.get("G"))
    layers = _modules(_modules(generator).get("synthesis"))
    if "fg_nerf" in layers:
        family = f"{STYLENERF} pickle"
    elif "input" in layers:
        family = "StyleGAN3 pickle"
    elif any(re.fullmatch(r"b\d+", str(name)) for name in layers):
        family = "StyleGAN2-ADA pickle"
    else:
        return "a pickle of objects with their own source text"
    size = attributes(generator).get("img_resolution")
    return f"{family} of {size} pixels" if type(size) is int and 0 < size < 1 << 16 else family


def attributes(record: Any) -> Mapping[Any, Any]:
    """Return the attributes of a stored object; empty if it has none."""
    state = record.state if isinstance(record, Record) else None
    if isinstance(record, Record) and record.name == PERSISTENT and record.arguments:
        state = _items(record.arguments[0]).get("state")
    return state if isinstance(state, dict) else {}


def _modules(record: Any) -> Mapping[Any, Any]:
    return _items(attributes(record).get("_modules"))


def _items(container: Any) -> Mapping[Any, Any]:
    items = container.items if isinstance(container, Record) else container
    return items if isinstance(items, dict) else {}
