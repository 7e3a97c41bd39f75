"""Run a graph of TensorFlow.js as a frozen, differentiable network.

Values keep TensorFlow's layout, images (B, H, W, C). A convolution sees them as (B, C, H, W) in channels-last memory,
so that nothing is copied. The operations are those of networks of faces; others are refused by name.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from promptgen.frozen import FrozenModule
from promptgen.loading.published import reading
from promptgen.loading.tfjs import TFJSModel, checked
from promptgen.perception.tensorflow_layers import convolve, max_pool

MAX_NODES = 5000
MAX_STRIDE = 16
"""Largest stride and largest side of a pooling window."""

MAX_NUMBERS = 1 << 24
"""Most numbers of one value for one image."""

ACTIVATIONS: Mapping[tuple[str, ...], bool] = {(): False, ("BiasAdd",): False, ("BiasAdd", "Relu"): True}
"""What may be fused into an operation, and whether it ends in a ReLU."""

WANTED = "a graph of TensorFlow.js"


class Node(BaseModel, frozen=True):
    """An operation of a graph; its attributes are read by the type that the operation expects."""

    name: Annotated[str, Field(min_length=1)]
    op: str
    input: tuple[str, ...] = ()
    attr: dict[str, Any] = {}

    @property
    def sources(self) -> list[str]:
        """Names of the nodes whose first outputs it reads."""
        return [source.removesuffix(":0") for source in self.input]

    def word(self, key: str) -> str:
        return _decoded(self._attribute(key, "s"))

    def words(self, key: str) -> tuple[str, ...]:
        """Return the words of an attribute; none if it is missing."""
        listed = self._attribute(key, "list") if key in self.attr else {}
        return tuple(map(_decoded, listed.get("s", [])))

    def flag(self, key: str) -> bool:
        """Return whether an attribute is set."""
        return key in self.attr and self._attribute(key, "b") is True

    def sides(self, key: str) -> tuple[int, int]:
        """Return the vertical and the horizontal number of an attribute with one for each dimension."""
        sides = [int(side) for side in self._attribute(key, "list").get("i", [])]
        if len(sides) != 4:
            raise ValueError(f"the {key} of {self.name} are {len(sides)} numbers, expected 4")
        batch, vertical, horizontal, channel = sides
        if (batch, channel) != (1, 1) or not all(1 <= side <= MAX_STRIDE for side in (vertical, horizontal)):
            raise ValueError(f"the {key} of {self.name} are not from 1 to {MAX_STRIDE} along images alone")
        return vertical, horizontal

    def _attribute(self, key: str, kind: str) -> Any:
        value = self.attr.get(key)
        if not isinstance(value, dict) or kind not in value:
            raise ValueError(f"the attribute {key} of {self.name} is missing or of another type")
        return value[kind]

    @property
    def same(self) -> bool:
        """Whether it pads; also checks what the operation on images has no choice about here."""
        padding = self.word("padding")
        usual = self.sides("dilations") if "dilations" in self.attr else (1, 1)
        if padding not in ("SAME", "VALID") or self.word("data_format") != "NHWC" or usual != (1, 1):
            raise ValueError(f"{self.name} has dilations, or another padding or layout than SAME, VALID and NHWC")
        return padding == "SAME"

    @property
    def rectified(self) -> bool:
        """Whether it ends in a ReLU."""
        if (fused := self.words("fused_ops")) not in ACTIVATIONS:
            raise ValueError(f"{self.name} ends in {' and '.join(fused)}, expected BiasAdd and perhaps Relu")
        return ACTIVATIONS[fused]


class _Topology(BaseModel, frozen=True):
    node: Annotated[tuple[Node, ...], Field(min_length=1, max_length=MAX_NODES)]


class Pointwise(nn.Module):
    """A function of tensors."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values)


class Constant(nn.Module):
    """A weight that an operation reads like any other value."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        return self.value


class Convolution(nn.Module):
    """Convolution with what is fused into it; that of each channel by itself, if `depthwise`."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, node: Node, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.stride, self.same, self.rectified = node.sides("strides"), node.same, node.rectified
        depthwise = node.op == "DepthwiseConv2dNative"
        kernel = weights[0]  # height, width, inputs, outputs (for each input if depthwise)
        self.groups = kernel.shape[2] if depthwise else 1
        weight = kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else kernel.permute(3, 2, 0, 1)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", weights[1] if len(weights) > 1 else None)

    def forward(self, image: Tensor) -> Tensor:
        image = image.permute(0, 3, 1, 2)
        image = convolve(image, self.weight, self.bias, self.stride, same=self.same, groups=self.groups)
        return (image.relu() if self.rectified else image).permute(0, 2, 3, 1)


class MatrixProduct(nn.Module):
    """Product with a matrix, and what is fused into it."""

    matrix: Tensor
    bias: Tensor

    def __init__(self, node: Node, weights: Sequence[Tensor]) -> None:
        super().__init__()
        if node.flag("transpose_a") or node.flag("transpose_b"):
            raise ValueError(f"{node.name} is transposed")
        self.rectified = node.rectified
        self.register_buffer("matrix", weights[0])
        self.register_buffer("bias", weights[1])

    def forward(self, value: Tensor) -> Tensor:
        value = value @ self.matrix + self.bias
        return value.relu() if self.rectified else value


class MaxPool(nn.Module):
    """Largest value of each window."""

    def __init__(self, node: Node, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.kernel, self.stride, self.same = node.sides("ksize"), node.sides("strides"), node.same

    def forward(self, image: Tensor) -> Tensor:
        image = max_pool(image.permute(0, 3, 1, 2), self.kernel, self.stride, same=self.same)
        return image.permute(0, 2, 3, 1)


class Mean(nn.Module):
    """Mean along axes."""

    def __init__(self, node: Node, weights: Sequence[Tensor]) -> None:
        super().__init__()
        if weights[0].dtype != torch.int32 or not bool((weights[0] > 0).all()):
            raise ValueError(f"{node.name} is a mean along axes that are not whole numbers from 1 on")
        self.axes, self.keep = tuple(weights[0].flatten().tolist()), node.flag("keep_dims")

    def forward(self, value: Tensor) -> Tensor:
        return value.mean(dim=self.axes, keepdim=self.keep)


class Operation(NamedTuple):
    """An operation that is known.

    Attributes:
        values: number of its inputs that are values; those after them are weights.
        weights: fewest and most inputs after the values.
        build: makes it of its node and weights.
    """

    values: int
    weights: tuple[int, int]
    build: Callable[[Node, Sequence[Tensor]], nn.Module]


def _pointwise(values: int, function: Callable[..., Tensor]) -> Operation:
    return Operation(values, (0, 0), lambda node, weights: Pointwise(function))


def _identity(value: Tensor) -> Tensor:
    return value


def _softmax(value: Tensor) -> Tensor:
    return value.softmax(-1)


OPERATIONS: Mapping[str, Operation] = {
    "Identity": _pointwise(1, _identity),
    "Relu": _pointwise(1, torch.relu),
    "Sigmoid": _pointwise(1, torch.sigmoid),
    "Softmax": _pointwise(1, _softmax),
    "Add": _pointwise(2, torch.add),
    "AddV2": _pointwise(2, torch.add),
    "Mul": _pointwise(2, torch.mul),
    "Minimum": _pointwise(2, torch.minimum),
    "Maximum": _pointwise(2, torch.maximum),
    "Conv2D": Operation(1, (1, 1), Convolution),
    "_FusedConv2D": Operation(1, (2, 2), Convolution),
    "DepthwiseConv2dNative": Operation(1, (1, 1), Convolution),
    "_FusedMatMul": Operation(1, (2, 2), MatrixProduct),
    "MaxPool": Operation(1, (0, 0), MaxPool),
    "Mean": Operation(1, (1, 1), Mean),
}


class _Step(NamedTuple):
    """Inputs of an operation, the name of its result, and the values that nothing reads after it."""

    inputs: list[str]
    name: str
    last_read: list[str]


class Graph(FrozenModule):
    """A frozen graph with one input.

    Args:
        model: content of the files.
        image_shape: height, width and channels of the input.
        outputs: width of each wanted output (B, width), by the name of its node; the rest of the graph is left out.
        source: the file, for errors.

    Raises:
        ModelFileError: the graph is damaged, or has an operation that is not known.
    """

    def __init__(
        self, model: TFJSModel, image_shape: tuple[int, int, int], outputs: Mapping[str, int], source: Path
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        with reading(source, WANTED):
            topology = checked(_Topology, model.topology, source, WANTED)
            nodes = {node.name: node for node in topology.node}
            if len(nodes) < len(topology.node):
                raise ValueError("two of its nodes have the same name")
            order = _order(nodes, self.outputs)
            self.operations = nn.ModuleList(_built(node, model.weights) for node in order if node.op != "Placeholder")
            self.steps = _steps(order)
            self.placeholder = _placeholder(order)
            self.freeze()
            self._try(image_shape, outputs)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the outputs, (B, width) by name, of images (B, H, W, C)."""
        return {name: value for name, value in self._values(image) if name in self.outputs}

    def _values(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the value of each operation; a value is kept only until it was last read."""
        values = {self.placeholder: image}
        for operation, step in zip(self.operations, self.steps, strict=True):
            value = values[step.name] = operation(*(values[name] for name in step.inputs))
            for name in step.last_read:
                del values[name]
            yield step.name, value

    def _try(self, image_shape: tuple[int, int, int], outputs: Mapping[str, int]) -> None:
        """Run the graph on tensors without numbers, which shows whether shapes fit and none is too large."""
        image = torch.empty(1, *image_shape, device="meta")
        for name, value in copy.deepcopy(self).to("meta")._values(image):
            if value.numel() > MAX_NUMBERS:
                raise ValueError(f"{name} would have {value.numel()} numbers for one image")
            if name in outputs and value.shape != (1, outputs[name]):
                raise ValueError(f"{name} has the shape {tuple(value.shape)}, expected {(1, outputs[name])}")


def _decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()


def _values_of(node: Node) -> list[str]:
    """Return the names of the values that a node reads, without its weights.

    Raises:
        ValueError: the operation is unknown, or has more or fewer inputs.
    """
    if node.op in ("Placeholder", "Const"):
        return []
    if (operation := OPERATIONS.get(node.op)) is None:
        raise ValueError(f"the operation {node.op} of {node.name} is unknown; known are {', '.join(OPERATIONS)}")
    fewest, most = (operation.values + number for number in operation.weights)
    if not fewest <= len(node.input) <= most:
        raise ValueError(f"{node.name} has {len(node.input)} inputs, expected {fewest} to {most}")
    return node.sources[: operation.values]


def _order(nodes: Mapping[str, Node], outputs: Sequence[str]) -> list[Node]:
    """Return the nodes whose values are needed, each after what it reads.

    Raises:
        ValueError: a node is missing, an operation is unknown, or nodes read each other in a circle.
    """
    needed: dict[str, list[str]] = {}
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name not in nodes:
            raise ValueError(f"it has no node {name}")
        if name not in needed:
            needed[name] = _values_of(nodes[name])
            waiting += needed[name]
    return [nodes[name] for name in TopologicalSorter(needed).static_order()]


def _placeholder(order: Sequence[Node]) -> str:
    """Return the name of the node of the input.

    Raises:
        ValueError: there is no such node, or several.
    """
    names = [node.name for node in order if node.op == "Placeholder"]
    if len(names) != 1:
        raise ValueError(f"it has the inputs {', '.join(names) or 'none'}, expected one")
    return names[0]


def _built(node: Node, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the module of a node.

    Raises:
        ValueError: an attribute or a weight is missing or unusual.
    """
    names = [node.name] if node.op == "Const" else node.sources[OPERATIONS[node.op].values :]
    if missing := [name for name in names if name not in weights]:
        raise ValueError(f"{node.name} reads {missing[0]}, which is no weight")
    if node.op == "Const":
        return Constant(weights[node.name])
    return OPERATIONS[node.op].build(node, [weights[name] for name in names])


def _steps(order: Sequence[Node]) -> list[_Step]:
    """Return what each operation reads, and when its result is no longer needed."""
    last = {name: node.name for node in order for name in _values_of(node)}
    read_last: dict[str, list[str]] = {}
    for name, reader in last.items():
        read_last.setdefault(reader, []).append(name)
    run = (node for node in order if node.op != "Placeholder")
    return [_Step(_values_of(node), node.name, read_last.get(node.name, [])) for node in run]
