"""CLIP models through open_clip: unit vectors of images and texts, whose inner product measures their agreement.

Source: *Learning Transferable Visual Models From Natural Language Supervision* (Radford et al., ICML 2021,
https://arxiv.org/abs/2103.00020). Models are loaded from local files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from promptgen.errors import CheckpointError, ConfigError
from promptgen.loading.checks import load_strictly
from promptgen.loading.own_files import building, fill_module, load_tensors, save_module
from promptgen.loading.published import read_state
from promptgen.networks.frozen import FrozenModule
from promptgen.networks.precision import widened
from promptgen.networks.torchvision_ops import import_open_clip
from promptgen.perception.networks import initial_weights
from promptgen.perception.tokens import Tokens
from promptgen.strict import Section

Colour = tuple[float, float, float]

OPENAI_MEAN: Colour = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Colour = (0.26862954, 0.26130258, 0.27577711)

OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's files store besides the weights."""


class ClipConfig(Section):
    """Shape of a small CLIP model of this project.

    Attributes:
        image_size: height and width of the input images.
        patch_size: height and width of the patches, a divisor of `image_size`.
        embed_dim: coordinates of a feature vector.
        vision_width: channels of the vision transformer.
        vision_layers: layers of the vision transformer.
        text_width: channels of the text transformer.
        text_layers: layers of the text transformer.
        heads: attention heads of both, a divisor of both widths.
        context_length: largest number of tokens of a text, start and end tokens included.
        words: restricted vocabulary, which keeps the token table small; empty means the tokeniser's full vocabulary.
    """

    image_size: int = Field(default=64, gt=0)
    patch_size: int = Field(default=8, gt=0)
    embed_dim: int = Field(default=64, gt=0)
    vision_width: int = Field(default=64, gt=0)
    vision_layers: int = Field(default=3, gt=0, le=256)
    text_width: int = Field(default=64, gt=0)
    text_layers: int = Field(default=2, gt=0, le=256)
    heads: int = Field(default=4, gt=0)
    context_length: int = Field(default=16, gt=2, le=1024)
    words: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_divisors(self) -> ClipConfig:
        if self.image_size % self.patch_size or self.vision_width % self.heads or self.text_width % self.heads:
            raise ValueError("patch_size must divide image_size, and heads both widths")
        return self


class ClipModel(FrozenModule):
    """Maps images and texts to unit vectors; it can be trained until `freeze()` is called.

    Args:
        network: a model of open_clip, or one with the same `encode_image`, `encode_text` and `logit_scale`.
        image_size: height and width of the network's input.
        tokens: tokeniser that maps texts to token ids, (B, T) int64.
        mean: mean colour, subtracted from the network's input.
        std: standard deviation of the colours, by which the input is then divided.
        config: shape of a small model of this project; None for all other models.
    """

    entries = ("image_features",)

    network: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        image_size: int,
        tokens: Callable[[Sequence[str]], Tensor],
        mean: Colour = OPENAI_MEAN,
        std: Colour = OPENAI_STD,
        config: ClipConfig | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.tokens = tokens
        self.config = config
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @property
    def log_scale(self) -> Tensor:
        """Logarithm of the contrastive loss's factor of the cosines, a scalar."""
        scale: Tensor = self.network.logit_scale
        return scale

    def image_features(self, image: Tensor) -> Tensor:
        """Return unit vectors, (B, E), of images (B, 3, H, W) in [0, 1], resized by `fit` if necessary."""
        inputs = (fit(image, self.image_size) - self.mean) / self.std
        features: Tensor = self.network.encode_image(inputs)
        return F.normalize(widened(features), dim=1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors, (B, E), of texts.

        Raises:
            ConfigError: a text is too long or has a word outside the vocabulary.
        """
        features: Tensor = self.network.encode_text(self.tokens(texts).to(self.mean.device))
        return F.normalize(features, dim=1)


def fit(image: Tensor, size: int, *, antialias: bool = False) -> Tensor:
    """Return images, (B, 3, size, size), with the shorter side resized to `size` and the centre cropped.

    The resizing is bicubic, does not clamp, and by default does not antialias, as in the method's reference code.
    Images of the right size are unchanged.

    Args:
        image: images, (B, 3, H, W).
        size: height and width of the result.
        antialias: whether to low-pass filter an image before shrinking it.
    """
    height, width = image.shape[2:]
    short = min(height, width)
    if short != size:
        shape = (size * height // short, size * width // short)
        image = F.interpolate(image, shape, mode="bicubic", align_corners=False, antialias=antialias)
    top, left = (round((side - size) / 2) for side in image.shape[2:])
    return image[:, :, top : top + size, left : left + size]


def small_clip(config: ClipConfig, seed: int = 0) -> ClipModel:
    """Return an untrained small model."""
    tokens = Tokens(config.context_length, config.words)
    vision = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "width": config.vision_width,
        "layers": config.vision_layers,
        "head_width": config.vision_width // config.heads,
    }
    text = {
        "context_length": config.context_length,
        "vocab_size": tokens.size,
        "width": config.text_width,
        "layers": config.text_layers,
        "heads": config.heads,
    }
    with initial_weights(seed, "clip"):
        network = import_open_clip().CLIP(config.embed_dim, vision, text)
    return ClipModel(network, config.image_size, tokens, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), config)


def save_clip(path: Path, model: ClipModel) -> None:
    """Save a small model and its configuration in one file.

    Raises:
        ConfigError: the model is not a small model of this project.
        StorageError: the file cannot be written.
    """
    if model.config is None:
        raise ConfigError(f"{path}: only the project's own small CLIP models can be saved")
    save_module(path, model, {"clip": model.config.model_dump(mode="json")})


def load_open_clip(
    path: Path, architecture: str | None = None, mean: Colour = OPENAI_MEAN, std: Colour = OPENAI_STD
) -> ClipModel:
    """Load a model from a local file and freeze it.

    Args:
        path: file of weights with open_clip's or OpenAI's key names; if `architecture` is None, a file written by
            `save_clip`.
        architecture: open_clip's name of the architecture; OpenAI's weights need names such as `ViT-B-32-quickgelu`.
        mean: see `ClipModel`; ignored for files written by `save_clip`.
        std: see `ClipModel`; ignored for files written by `save_clip`.

    Raises:
        CheckpointError: `architecture` is None, but `save_clip` did not write the file.
        ConfigError: the architecture is unknown, or does not use open_clip's own tokeniser.
        ModelFileError: the file cannot be read, or has the weights of another architecture.
    """
    if architecture is None:
        model = _load_small(path)
    else:
        model = _untrained(architecture, mean, std)
        state = read_state(path)
        for name in OPENAI_NUMBERS:
            if name in state and state[name].ndim == 0:
                del state[name]
        load_strictly(model.network, state, path)
    return model.frozen()


def random_open_clip(
    architecture: str | None = None, mean: Colour = OPENAI_MEAN, std: Colour = OPENAI_STD, *, seed: int = 0
) -> ClipModel:
    """Return a frozen model of open_clip with random weights, for dry runs; arguments as of `ClipModel`.

    Raises:
        ConfigError: the architecture is None or unknown, or does not use open_clip's own tokeniser.
    """
    if architecture is None:
        raise ConfigError("random weights need an architecture, such as ViT-B-32; got none")
    return _untrained(architecture, mean, std, seed).frozen()


def _load_small(path: Path) -> ClipModel:
    """Return the model in a file written by `save_clip`."""
    tensors, config = load_tensors(path)
    if "clip" not in config:
        raise CheckpointError(f"{path} contains {config.get('kind', 'weights')}, expected a CLIP model of this project")
    with building(tensors, config["clip"], path):
        model = small_clip(ClipConfig.model_validate(config["clip"]))
    fill_module(model, tensors, path)
    return model


def _untrained(architecture: str, mean: Colour, std: Colour, seed: int = 0) -> ClipModel:
    """Return an open_clip model with initial weights drawn from `seed`."""
    tokens = _tokens(architecture)
    with initial_weights(seed, "clip"), _unwarned():
        network = import_open_clip().create_model(architecture)
    size = network.visual.image_size
    return ClipModel(network, size if isinstance(size, int) else size[0], tokens, mean, std)


@contextmanager
def _unwarned() -> Iterator[None]:
    """Suppress open_clip's warning about missing weights: they are loaded later, or random on purpose."""

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights")

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def _tokens(architecture: str) -> Tokens:
    """Return the tokeniser of a built-in architecture of open_clip."""
    config = import_open_clip().get_model_config(architecture)
    if config is None:
        raise ConfigError(f"open_clip has no architecture {architecture!r}; `open_clip.list_models()` lists them")
    text = config["text_cfg"]
    if any(key.startswith(("hf_", "tokenizer_")) for key in text):
        raise ConfigError(
            f"{architecture} uses another tokeniser; choose an architecture with open_clip's own tokeniser"
        )
    return Tokens(text["context_length"])
