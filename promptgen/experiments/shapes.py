"""What a generator's card says about its images and latents before any network is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from math import prod
from typing import Any

import promptgen
from promptgen.config.specs import CustomModel, GeneratorSpec, PublishedGenerator
from promptgen.flows.flow import FlowConfig
from promptgen.model_files.cards import Card
from promptgen.strict import validate


@dataclass(frozen=True)
class Shape:
    """Size of what goes into a generator and of what comes out.

    Attributes:
        image_size: height and width of the images.
        latent: name and number of the coordinates of each part of the latent.
    """

    image_size: int
    latent: Mapping[str, int]

    @property
    def dim(self) -> int:
        """Coordinates of the latent in all."""
        return sum(self.latent.values())


def shape_of(spec: GeneratorSpec, card: Card | None) -> Shape | None:
    """Return the shape of a generator; None for one that only tells once it is built.

    Args:
        spec: the generator.
        card: its card; one of the user's own has none.

    Raises:
        ConfigError: the arguments are none of its network.
    """
    if isinstance(spec, CustomModel) or card is None:
        return None
    if card.type not in _SHAPES:
        return _shipped(card)
    given = spec.arguments if isinstance(spec, PublishedGenerator) else {}
    options = spec.model_dump(exclude={"type", "model", "weights", "arguments"})
    return _SHAPES[card.type]({**card.arguments, **given}, options)


def flow_parameters(dim: int, config: FlowConfig, context_dim: int = 0) -> int:
    """Return how many numbers the training of a `promptgen.flows.flow.Flow` adjusts, exactly.

    Args:
        dim: coordinates of the latent.
        config: size of the flow.
        context_dim: coordinates of the condition.
    """
    parts = config.parts or (dim,)
    return config.blocks * sum(_block_parameters(part, config.hidden, context_dim) for part in parts)


def _block_parameters(dim: int, hidden: int, context_dim: int) -> int:
    """Return those of one block: a scale and a shift per dimension, and the coupling's network."""
    seen, moved = dim // 2 + context_dim, dim - dim // 2
    return 2 * dim + (seen + 1) * hidden + (hidden + 1) * 2 * moved


def _shipped(card: Card) -> Shape | None:
    """Return the shape of a generator of the embedded world, which its file in the package tells."""
    from promptgen.loading.own_files import load_tensors

    for scheme, _, place in (url.partition(":") for url in card.files[0].urls):
        if scheme == "package":
            with resources.as_file(resources.files(promptgen) / place) as path:
                network = load_tensors(path)[1]["network"]
            return Shape(network["size"], {"z": network["latent_dim"]})
    return None


def _stylegan2(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Shape:
    from promptgen.generators.stylegan2 import StyleGAN2Config

    config = validate(StyleGAN2Config, {**arguments, **options})
    return Shape(config.size, {"z": config.latent_dim})


def _biggan(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Shape:
    from promptgen.generators.biggan_config import published_config

    config = published_config(arguments["size"])
    return Shape(config.output_dim, {"z": config.z_dim, "class embedding": config.class_embed_dim})


def _nvae(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Shape:
    from promptgen.generators.nvae_config import NVAEConfig

    config = validate(NVAEConfig, {**arguments, "groups": options["groups"]})
    return Shape(config.image_size, {f"group {index}": prod(config.latent_shapes[index]) for index in config.chosen})


def _diffae(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Shape:
    from promptgen.generators.diffae_config import DiffAEConfig

    config = validate(DiffAEConfig, {**arguments, "latent": options["latent"]})
    noise = config.latent_dim - config.style_channels
    return Shape(config.image_size, {"code": config.style_channels, **({"noise": noise} if noise else {})})


def _stylenerf(arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Shape:
    from promptgen.generators.stylenerf_config import StyleNeRFConfig

    config = validate(StyleNeRFConfig, arguments)
    return Shape(config.image_size, {"z": config.latent_dim})


_SHAPES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Shape]] = {
    "stylegan2": _stylegan2,
    "biggan": _biggan,
    "nvae": _nvae,
    "diffae": _diffae,
    "stylenerf": _stylenerf,
}
"""By the type of a card: what makes its shape of the card's arguments and of those in params.yaml."""
