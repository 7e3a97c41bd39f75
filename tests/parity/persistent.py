"""Published files whose objects bring their source text along, written as their publisher's own code writes them.

The classes live in modules that exist only while a file is written; the source text raises if anybody runs it.
"""

import contextlib
import pickle
import sys
import types
from collections import OrderedDict

import torch

SOURCE = 'raise RuntimeError("the source text in a file must never be run")\n'
BUFFERS = ("resample_filter", "w_avg", "alpha")


class Persistent:
    """An object that is stored as a call of the publisher's function, with its class's name, source text and state."""

    def __init__(self, class_name, state):
        self.class_name = class_name
        self.state = state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.class_name}
        rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        return rebuild, (meta | {"state": self.state},)


class EasyDict(dict):
    """A dict whose items are attributes, as the publisher's configuration is."""


def persistent_file(path, tensors, settings, **extra):
    """Write a file of one generator; return `path`.

    Args:
        path: the file.
        tensors: the generator's, by dotted name.
        settings: what it was built with.
        extra: further top-level entries.
    """
    generator = module_tree(tensors)
    generator.state |= {"_init_args": (), "_init_kwargs": settings}
    content = {"training_set_kwargs": {"resolution": 32}, "G": None, "D": None, "G_ema": generator} | extra
    with publishers_modules(), path.open("wb") as file:
        pickle.dump(content, file, protocol=3)
    return path


def module_tree(tensors):
    """Return the modules that dotted names of tensors describe."""
    own = {name: tensor for name, tensor in tensors.items() if "." not in name}
    children = {}
    for name, tensor in tensors.items():
        child, _, rest = name.partition(".")
        if rest:
            children.setdefault(child, {})[rest] = tensor
    state = {
        "training": False,
        "_parameters": {n: torch.nn.Parameter(t, requires_grad=False) for n, t in own.items() if n not in BUFFERS},
        "_buffers": OrderedDict({n: t for n, t in own.items() if n in BUFFERS}),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict({name: module_tree(below) for name, below in children.items()}, encoder=None),
    }
    if children and all(name.isdigit() for name in children):  # as torch's own containers are
        container = torch.nn.ModuleList()
        container._modules = {name: module for name, module in state["_modules"].items() if module is not None}
        return container
    return Persistent("Module", state)


@contextlib.contextmanager
def publishers_modules():
    """Make the publisher's modules importable."""
    package, persistence, util = (
        types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib.util")
    )

    def _reconstruct_persistent_obj(meta):
        raise NotImplementedError

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util.EasyDict = EasyDict
    added = {"torch_utils": package, "torch_utils.persistence": persistence, "dnnlib.util": util}
    home, EasyDict.__module__ = EasyDict.__module__, "dnnlib.util"
    sys.modules |= added
    try:
        yield
    finally:
        EasyDict.__module__ = home
        for name in added:
            del sys.modules[name]
