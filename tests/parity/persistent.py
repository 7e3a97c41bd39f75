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


class DictConfig:
    """A container of the configuration system that the publisher used."""

    def __init__(self, content, parent=None):
        self._parent = parent
        self._content = {key: wrapped(value, self) for key, value in content.items()}


class AnyNode:
    """A value in such a container."""

    def __init__(self, value, parent):
        self._parent = parent
        self._val = value


CLASSES = {"dnnlib.util": EasyDict, "omegaconf.dictconfig": DictConfig, "omegaconf.nodes": AnyNode}


def wrapped(value, parent=None):
    """Return settings in containers of the configuration system."""
    return DictConfig(value, parent) if isinstance(value, dict) else AnyNode(value, parent)


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
    names = {f"{name}." for name in ("torch_utils.persistence", *CLASSES)}
    names = {name[:end] for name in names for end in range(len(name)) if name[end] == "."}
    added = {name: types.ModuleType(name) for name in names}

    def _reconstruct_persistent_obj(meta):
        raise NotImplementedError

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    added["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    home = {name: kind.__module__ for name, kind in CLASSES.items()}
    for name, kind in CLASSES.items():
        kind.__module__ = name
        setattr(added[name], kind.__name__, kind)
    sys.modules |= added
    try:
        yield
    finally:
        for name, kind in CLASSES.items():
            kind.__module__ = home[name]
        for name in added:
            del sys.modules[name]
