"""Run a graph of TensorFlow.js as a frozen, differentiable network.

The operations are those of published networks of faces; others are refused by name. Sums, products and bounds that
follow a convolution become part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from promptgen.loading.published import reading
from promptgen.loading.tfjs import TFJSModel, checked
from promptgen.networks.frozen import FrozenModule
from promptgen.perception.tensorflow.operations import OPERATIONS, Constant, Convolution, Layer, Node

MAX_NODES = 5000
MAX_NUMBERS = 1 << 24
"""Most numbers of one value for one image."""

WANTED = "a graph of TensorFlow.js"


class _Topology(BaseModel, frozen=True):
    node: Annotated[tuple[Node, ...], Field(min_length=1, max_length=MAX_NODES)]


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
            self.placeholder = _placeholder(order)
            built = [(node, _built(node, model.weights)) for node in order if node.name != self.placeholder]
            fused = _fused(built, self.outputs)
            self.operations = nn.ModuleList(module for _, module in fused)
            self.steps = _steps([node for node, _ in fused])
            self.freeze()
            self._try(image_shape, outputs)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the outputs, (B, width) by name, of images (B, H, W, C)."""
        return {name: value for name, value in self._values(image) if name in self.outputs}

    def _values(self, image: Tensor, *, bounded: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the value of each operation; a value is kept only until it was last read.

        Args:
            image: the input.
            bounded: whether to refuse a value of more than `MAX_NUMBERS` before it is computed.

        Raises:
            ValueError: a value would be too large.
        """
        values = {self.placeholder: image}
        for operation, step in zip(self.operations, self.steps, strict=True):
            inputs = [values[name] for name in step.inputs]
            if bounded and (size := cast(Layer, operation).size(*inputs)) > MAX_NUMBERS:
                raise ValueError(f"{step.name} would have {size} numbers for one image")
            values[step.name] = operation(*inputs)
            yield step.name, values[step.name]
            for name in step.last_read:
                del values[name]

    @torch.no_grad()
    def _try(self, image_shape: tuple[int, int, int], outputs: Mapping[str, int]) -> None:
        """Run the graph on one image, which shows whether shapes fit and none is too large."""
        for name, value in self._values(torch.zeros(1, *image_shape), bounded=True):
            if name in outputs and value.shape != (1, outputs[name]):
                raise ValueError(f"{name} has the shape {tuple(value.shape)}, expected {(1, outputs[name])}")


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


def _built(node: Node, weights: Mapping[str, Tensor]) -> Layer:
    """Return the module of a node.

    Raises:
        ValueError: an attribute or a weight is missing or unusual.
    """
    names = [node.name] if node.op == "Const" else node.sources[OPERATIONS[node.op].values :]
    if missing := [name for name in names if name not in weights]:
        raise ValueError(f"{node.name} reads {missing[0]}, which is not a weight")
    if node.op != "Mean" and (whole := [name for name in names if not weights[name].is_floating_point()]):
        raise ValueError(f"the weight {whole[0]} of {node.op} has whole numbers, whose fractions were lost")
    if node.op == "Const":
        return Constant(weights[node.name])
    return OPERATIONS[node.op].build(node, [weights[name] for name in names])


def _fused(built: Sequence[tuple[Node, Layer]], outputs: Sequence[str]) -> list[tuple[Node, Layer]]:
    """Return what is left of the operations after each convolution has absorbed what it can of those that follow it.

    It absorbs an operation that alone reads its result, and takes the name of the last one.
    """
    constants = {node.name: module.value for node, module in built if isinstance(module, Constant)}
    readers: dict[str, list[Node]] = {}
    for node, _ in built:
        for name in _values_of(node):
            readers.setdefault(name, []).append(node)
    absorbed: set[str] = set()
    left: list[tuple[Node, Layer]] = []
    for node, module in built:
        if node.name in absorbed:
            continue
        while isinstance(module, Convolution) and node.name not in outputs and len(readers[node.name]) == 1:
            (reader,) = readers[node.name]
            others = [constants.get(name) for name in _values_of(reader) if name != node.name]
            if (others and others[0] is None) or not module.absorb(reader.op, others[0] if others else None):
                break
            absorbed.add(reader.name)
            node = node.model_copy(update={"name": reader.name})
        left.append((node, module))
    read = {name for node, _ in left for name in _values_of(node)}
    return [(node, module) for node, module in left if node.name in read or node.name in outputs]


def _steps(order: Sequence[Node]) -> list[_Step]:
    """Return what each operation reads, and when its result is no longer needed."""
    last = {name: node.name for node in order for name in _values_of(node)}
    read_last: dict[str, list[str]] = {}
    for name, reader in last.items():
        read_last.setdefault(reader, []).append(name)
    return [_Step(_values_of(node), node.name, read_last.get(node.name, [])) for node in order]
