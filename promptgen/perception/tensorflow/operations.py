"""The operations of TensorFlow's graphs that are known, as modules; values keep TensorFlow's layout, (B, H, W, C).

A convolution sees images as (B, C, H, W) in channels-last memory, so that nothing is copied.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from promptgen.perception.tensorflow.layers import convolve, max_pool

MAX_WINDOW = 16
"""Largest stride, and largest side of a kernel or of a pooling window."""

ACTIVATIONS: Mapping[tuple[str, ...], bool] = {(): False, ("BiasAdd",): False, ("BiasAdd", "Relu"): True}
"""What may be fused into an operation, and whether it ends in a ReLU."""


AFFINE, CLAMPS = ("Mul", "Add", "AddV2"), ("Relu", "Minimum", "Maximum")
"""Operations that a convolution before them may absorb."""


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
        if (batch, channel) != (1, 1) or not all(1 <= side <= MAX_WINDOW for side in (vertical, horizontal)):
            raise ValueError(f"the {key} of {self.name} are not from 1 to {MAX_WINDOW} along images alone")
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


class Layer(nn.Module):
    """Base of the modules."""

    def size(self, *values: Tensor) -> int:
        """Return an upper bound on the count of numbers in the result: here, that of the inputs."""
        return sum(value.numel() for value in values)


class Pointwise(Layer):
    """A function of tensors."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def size(self, *values: Tensor) -> int:
        shape: torch.Size = torch.broadcast_shapes(*(value.shape for value in values))  # type: ignore[no-untyped-call]
        return shape.numel()

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values)


class Constant(Layer):
    """A weight that an operation reads like any other value."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        return self.value


class Convolution(Layer):
    """Convolution with what is fused into it; that of each channel by itself, if `depthwise`."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, node: Node, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.stride, self.same = node.sides("strides"), node.same
        self.floor, self.ceiling = 0.0 if node.rectified else -math.inf, math.inf
        depthwise = node.op == "DepthwiseConv2dNative"
        kernel = weights[0]  # height, width, inputs, outputs (for each input if depthwise)
        if kernel.ndim != 4 or max(kernel.shape[:2]) > MAX_WINDOW:
            raise ValueError(f"the kernel of {node.name} is too large or not of images: {tuple(kernel.shape)}")
        self.groups = kernel.shape[2] if depthwise else 1
        weight = kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else kernel.permute(3, 2, 0, 1)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", weights[1] if len(weights) > 1 else None)

    def forward(self, image: Tensor) -> Tensor:
        image = image.permute(0, 3, 1, 2)
        image = convolve(image, self.weight, self.bias, self.stride, same=self.same, groups=self.groups)
        if (self.floor, self.ceiling) == (0.0, math.inf):
            image = image.relu()
        elif self.clamped:
            image = image.clamp(self.floor, self.ceiling)
        return image.permute(0, 2, 3, 1)

    def size(self, *values: Tensor) -> int:
        return values[0][..., 0].numel() * len(self.weight)

    @property
    def clamped(self) -> bool:
        """Whether it ends in a clamp."""
        return (self.floor, self.ceiling) != (-math.inf, math.inf)

    def absorb(self, op: str, constant: Tensor | None) -> bool:
        """Let the convolution do what the next operation does, if it can; return whether it does.

        Args:
            op: the next operation.
            constant: what it combines each value with; None if there is nothing.
        """
        if op in CLAMPS:
            bound = 0.0 if constant is None else constant.item() if constant.ndim == 0 else math.nan
            limit = min if op == "Minimum" else max
            if not math.isnan(bound):
                self.floor, self.ceiling = limit(self.floor, bound), limit(self.ceiling, bound)
            return not math.isnan(bound)
        if op not in AFFINE or constant is None or self.clamped or constant.shape not in ((), self.weight.shape[:1]):
            return False
        bias = torch.zeros(len(self.weight)) if self.bias is None else self.bias
        if op == "Mul":
            self.weight, self.bias = self.weight * constant.expand(len(bias))[:, None, None, None], bias * constant
        else:
            self.bias = bias + constant
        return True


class MatrixProduct(Layer):
    """Product with a matrix, and what is fused into it."""

    matrix: Tensor
    bias: Tensor

    def __init__(self, node: Node, weights: Sequence[Tensor]) -> None:
        super().__init__()
        if node.flag("transpose_a") or node.flag("transpose_b") or weights[0].ndim != 2:
            raise ValueError(f"{node.name} is transposed, or a product with {weights[0].ndim} dimensions")
        self.rectified = node.rectified
        self.register_buffer("matrix", weights[0])
        self.register_buffer("bias", weights[1])

    def size(self, *values: Tensor) -> int:
        return values[0][..., 0].numel() * self.matrix.shape[1]

    def forward(self, value: Tensor) -> Tensor:
        value = value @ self.matrix + self.bias
        return value.relu() if self.rectified else value


class MaxPool(Layer):
    """Largest value of each window."""

    def __init__(self, node: Node, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.kernel, self.stride, self.same = node.sides("ksize"), node.sides("strides"), node.same

    def forward(self, image: Tensor) -> Tensor:
        image = max_pool(image.permute(0, 3, 1, 2), self.kernel, self.stride, same=self.same)
        return image.permute(0, 2, 3, 1)


class Mean(Layer):
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
    build: Callable[[Node, Sequence[Tensor]], Layer]


def _pointwise(values: int, function: Callable[..., Tensor]) -> Operation:
    return Operation(values, (0, 0), lambda node, weights: Pointwise(function))


OPERATIONS: Mapping[str, Operation] = {
    "Identity": _pointwise(1, lambda value: value),
    "Relu": _pointwise(1, torch.relu),
    "Sigmoid": _pointwise(1, torch.sigmoid),
    "Softmax": _pointwise(1, lambda value: value.softmax(-1)),
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


def _decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()
