"""A pretended accelerator, so that mistakes with devices show on a machine without one.

Its tensors say that they are on `DEVICE`, and hold their numbers on the CPU. As on a GPU, an operator that mixes them
with tensors of the CPU fails, and so do `numpy` and a random stream of the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = "meta"
"""The only device that torch has everywhere, backward passes included, and whose tensors it never reads itself."""

PARTS = torch._C.DispatchKey.CompositeImplicitAutograd
COPIES = {"copy_", "_to_copy"}
INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}


class Pretended(Tensor):
    """A tensor of the pretended device, with the numbers of `held`, a tensor of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    is_meta = False  # what says so has no numbers to copy into

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        with torch.inference_mode(False):  # torch forbids views of others that are made in inference mode
            made = Tensor._make_wrapper_subclass(cls, held.size(), device=DEVICE, **layout)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _call(function, args, kwargs or {})

    def __repr__(self):
        return f"Pretended({self.held!r})"

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)  # what is loaded is on the CPU, as with `map_location`

    def numpy(self, *args, **kwargs):
        raise TypeError("a tensor of another device has no numpy(): copy it to the CPU first")

    __array__ = numpy

    def tolist(self):
        return self.held.tolist()


@contextmanager
def pretended_device() -> Iterator[None]:
    """Have tensors that are made for `DEVICE` be pretended ones."""
    with _Literals(), _Operators():
        yield


def move(module: nn.Module) -> nn.Module:
    """Do what ``module.to(DEVICE)`` would, in place: parameters and buffers move, and no other attributes."""
    moved: dict[Tensor, Tensor] = {}

    def there(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or isinstance(tensor, Pretended):
            return tensor
        if tensor not in moved:
            copy = Pretended(tensor.detach().clone())
            shared = isinstance(tensor, nn.Parameter)
            moved[tensor] = nn.Parameter(copy, requires_grad=tensor.requires_grad) if shared else copy
        return moved[tensor]

    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            tensors.update({name: there(tensor) for name, tensor in tensors.items()})
    return module


class _Operators(TorchDispatchMode):
    """Sees all operators, also those without a pretended tensor among their arguments: ``zeros(3, device=DEVICE)``."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), PARTS):
            with self:  # elsewhere, operators that consist of others come in parts
                return function._op_dk(PARTS, *args, **kwargs)
        return _call(function, args, kwargs)


class _Literals(TorchFunctionMode):
    """Keeps the numbers that torch would not give to its own tensors of `DEVICE`: those of Python lists."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.tensor and _is_pretended(kwargs.get("device")):
            return Pretended(torch.tensor(*args, **kwargs | {"device": "cpu"}))
        if function is Tensor.new_tensor and isinstance(args[0], Pretended):
            return Pretended(args[0].held.new_tensor(*args[1:], **kwargs))
        if function is Tensor.__getitem__ and isinstance(args[1], tuple):
            lists = (list, tuple)
            args = (args[0], tuple(torch.tensor(part) if isinstance(part, lists) else part for part in args[1]))
        return function(*args, **kwargs)


def _call(function, args, kwargs):
    """Do an operator on the CPU, if a GPU would do it, and say that its results are where a GPU would leave them."""
    name = function.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    device = kwargs.get("device")
    pretended = any(isinstance(tensor, Pretended) for tensor in tensors)
    there = pretended if device is None else _is_pretended(device)
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"{name}: the random stream is on the CPU, the numbers are to be on the device")
    if pretended and name not in COPIES:
        _require_one_device(name, tensors[:1] + tree_leaves(args[2:]) if name in INDEXING else tensors)
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    held = tree_map_only(Pretended, lambda tensor: tensor.held, (args, kwargs))
    results = function(*held[0], **held[1])
    if function._schema.is_mutable:
        return args[0]
    return tree_map_only(Tensor, Pretended, results) if there else results


def _require_one_device(name, values):
    """Refuse tensors of both devices, unless those of the CPU are single numbers."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    here = [tuple(tensor.shape) for tensor in tensors if not isinstance(tensor, Pretended) and tensor.ndim]
    there = [tuple(tensor.shape) for tensor in tensors if isinstance(tensor, Pretended)]
    if here and (there or name in INDEXING):
        raise RuntimeError(f"{name}: tensors of the CPU, {here}, with tensors of the device, {there}")


def _is_pretended(device) -> bool:
    return device is not None and torch.device(device).type == DEVICE
