"""face-api's networks of 112 x 112 pixels: perceived expression, and perceived age and gender.

Both are stacks of depthwise separable convolutions. Their files are weight manifests of TensorFlow.js, quantised to
8 bits. The labels record how annotators *perceived* a face, never what a person feels or is.

Source: npm package ``@vladmandic/face-api`` (MIT), after https://github.com/justadudewhohacks/face-api.js. An
independent implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import torch
from torch import Tensor, nn

from promptgen.loading.checks import load_strictly
from promptgen.loading.tfjs import read_tfjs
from promptgen.networks.frozen import FrozenModule
from promptgen.perception.ages import EDGES, age_labels, logits_of_years
from promptgen.perception.merging import Classes, Merging
from promptgen.perception.networks import initial_weights
from promptgen.perception.tensorflow.layers import convolve, max_pool, resized

M = TypeVar("M", bound=FrozenModule)

SIDE = 112
"""Height and width of the networks' input, pixels."""

MEAN = (122.782, 117.001, 104.298)
"""Mean colour, of 255, that is subtracted from images."""

EXPRESSIONS: Final = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
"""Perceived expressions in the order of the published network's outputs."""

GENDERS: Final = ("female", "male")

MEAN_AGE_ERROR = 4.54
"""Mean absolute error of the published ages on the authors' test data, years."""


class Dense(nn.Module):
    """Linear layer, with the published names and layout."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(fan_in, fan_out) * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weights + self.bias


class Convolution(nn.Module):
    """Convolution with padding."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = (stride, stride)
        self.filters = _kernel(fan_out, fan_in, kernel)
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.filters, self.bias, self.stride)


class Separable(nn.Module):
    """Convolution of each channel by itself, then one of 1 x 1 across channels."""

    def __init__(self, fan_in: int, fan_out: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = (stride, stride)
        self.depthwise_filter = _kernel(fan_in, 1, 3)
        self.pointwise_filter = _kernel(fan_out, fan_in, 1)
        self.bias = nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        x = convolve(x, self.depthwise_filter, stride=self.stride, groups=x.shape[1])
        return convolve(x, self.pointwise_filter, self.bias)


class DenseBlock(nn.Module):
    """Four convolutions, each of which reads the sum of those before; the first halves the resolution."""

    def __init__(self, fan_in: int, width: int, *, first: bool) -> None:
        super().__init__()
        self.conv0 = Convolution(fan_in, width, 3, 2) if first else Separable(fan_in, width, 2)
        self.conv1, self.conv2, self.conv3 = (Separable(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        total = self.conv0(x).relu()
        total = total + self.conv1(total)
        total = total + self.conv2(total.relu())
        total = total + self.conv3(total.relu())
        return torch.relu(total)


class MainBlock(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.separable_conv0, self.separable_conv1, self.separable_conv2 = (Separable(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for layer in (self.separable_conv0, self.separable_conv1, self.separable_conv2):
            inner = layer(inner.relu())
        return x + inner


class ReductionBlock(nn.Module):
    """Two convolutions and a pooling, which halves the resolution, beside a convolution."""

    def __init__(self, fan_in: int, width: int, *, first: bool = False) -> None:
        super().__init__()
        self.first = first
        self.separable_conv0, self.separable_conv1 = Separable(fan_in, width), Separable(width, width)
        self.expansion_conv = Convolution(fan_in, width, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.separable_conv0(x if self.first else x.relu())
        inner = self.separable_conv1(inner.relu())
        return torch.add(max_pool(inner, (3, 3), (2, 2)), self.expansion_conv(x))


class FaceAPIExpression(FrozenModule):
    """Classifier of perceived expression; it can be trained until `freeze()` is called.

    Args:
        classes: classes that `EXPRESSIONS` are merged into, see `Merging`; None keeps them.

    Attributes:
        attributes: labels of ``expression``.

    Raises:
        ConfigError: the classes do not have each expression once.
    """

    def __init__(self, classes: Classes | None = None, seed: int = 0) -> None:
        super().__init__()
        self.merging = Merging(EXPRESSIONS, classes)
        self.attributes = {"expression": self.merging.labels}
        with initial_weights(seed, "faceapi_expression"):
            self.dense0, self.dense1 = DenseBlock(3, 32, first=True), DenseBlock(32, 64, first=False)
            self.dense2, self.dense3 = DenseBlock(64, 128, first=False), DenseBlock(128, 256, first=False)
            self.fc = Dense(256, len(EXPRESSIONS))

    def logits(self, image: Tensor) -> Tensor:
        """Return the logits of `EXPRESSIONS`, (B, 7), of images (B, 3, H, W) in [0, 1]."""
        x = face_input(image)
        for block in (self.dense0, self.dense1, self.dense2, self.dense3):
            x = block(x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), of images (B, 3, H, W) in [0, 1], which are resized by `resized`."""
        return {"expression": self.merging(self.logits(image))}


class FaceAPIAgeGender(FrozenModule):
    """Classifier of perceived gender and age; it can be trained until `freeze()` is called.

    The network estimates an age in years, from which `logits_of_years` computes logits of classes.

    Args:
        ages: years at which a new class of age begins.

    Attributes:
        attributes: labels of ``gender`` and ``age``.

    Raises:
        ConfigError: the years are not increasing.
    """

    def __init__(self, ages: Sequence[int] = EDGES, seed: int = 0) -> None:
        super().__init__()
        self.ages = tuple(ages)
        self.attributes = {"gender": GENDERS, "age": age_labels(self.ages)}
        with initial_weights(seed, "faceapi_age_gender"):
            self.entry_flow = nn.ModuleDict(
                {
                    "conv_in": Convolution(3, 32, 3, 2),
                    "reduction_block_0": ReductionBlock(32, 64, first=True),
                    "reduction_block_1": ReductionBlock(64, 128),
                }
            )
            self.middle_flow = nn.ModuleDict({f"main_block_{index}": MainBlock(128) for index in range(2)})
            self.exit_flow = nn.ModuleDict(
                {"reduction_block": ReductionBlock(128, 256), "separable_conv": Separable(256, 512)}
            )
            self.fc = nn.ModuleDict({"age": Dense(512, 1), "gender": Dense(512, 2)})

    def years_and_gender(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return ages in years, (B,), and logits of male and female, (B, 2), of images (B, 3, H, W) in [0, 1]."""
        x = self.entry_flow["conv_in"](face_input(image)).relu()
        for block in (self.entry_flow["reduction_block_0"], self.entry_flow["reduction_block_1"]):
            x = block(x)
        for block in self.middle_flow.values():
            x = block(x)
        x = self.exit_flow["separable_conv"](self.exit_flow["reduction_block"](x)).relu()
        features = x.mean(dim=(2, 3))
        return self.fc["age"](features)[:, 0], self.fc["gender"](features)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits, (B, K), by attribute, of images (B, 3, H, W) in [0, 1], which are resized by `resized`."""
        years, gender = self.years_and_gender(image)
        return {"gender": gender.flip(1), "age": logits_of_years(years, self.ages, MEAN_AGE_ERROR)}


def face_input(image: Tensor) -> Tensor:
    """Return the networks' input, (B, 3, 112, 112), of images (B, 3, H, W) in [0, 1]."""
    mean = image.new_tensor(MEAN)[:, None, None] / 255
    return (resized(image, SIDE) - mean).contiguous(memory_format=torch.channels_last)


def load_expression(manifest: Path, shard: Path, classes: Classes | None = None) -> FaceAPIExpression:
    """Load the published expression network and freeze it.

    Args:
        manifest: ``face_expression_model-weights_manifest.json``.
        shard: ``face_expression_model.bin``.
        classes: see `FaceAPIExpression`.

    Raises:
        ConfigError: the classes do not have each expression once.
        ModelFileError: a file cannot be read, or its names or shapes differ from the network's.
    """
    return _filled(FaceAPIExpression(classes), manifest, shard)


def load_age_gender(manifest: Path, shard: Path, ages: Sequence[int] = EDGES) -> FaceAPIAgeGender:
    """Load the published network of age and gender and freeze it.

    Args:
        manifest: ``age_gender_model-weights_manifest.json``.
        shard: ``age_gender_model.bin``.
        ages: see `FaceAPIAgeGender`.

    Raises:
        ConfigError: the years are not increasing.
        ModelFileError: a file cannot be read, or its names or shapes differ from the network's.
    """
    return _filled(FaceAPIAgeGender(ages), manifest, shard)


def _filled(model: M, manifest: Path, shard: Path) -> M:
    """Return a network with published weights, frozen."""
    keys = {key.replace(".", "/"): key for key in model.state_dict()}
    weights = read_tfjs(manifest, [shard]).weights
    # A published name with dots in it is none of the network's, although it reads like a key.
    state = {keys.get(name, name.replace(".", "/")): _torch_layout(name, value) for name, value in weights.items()}
    load_strictly(model, state, manifest, hint="is it another model's file?")
    return model.frozen()


def _torch_layout(name: str, weight: Tensor) -> Tensor:
    """Return a kernel, (height, width, inputs, outputs), as (outputs, inputs, height, width), per channel if it is."""
    if weight.ndim != 4:
        return weight
    return weight.permute(2, 3, 0, 1) if name.endswith("depthwise_filter") else weight.permute(3, 2, 0, 1)


def _kernel(fan_out: int, fan_in: int, side: int) -> nn.Parameter:
    """Return a random kernel that preserves the scale of its inputs."""
    return nn.Parameter(torch.randn(fan_out, fan_in, side, side) * (fan_in * side * side) ** -0.5)
