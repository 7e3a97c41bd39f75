"""The embedded world behind a prompt: noise of 4,096 numbers, a text, and shares that are known exactly.

Like a few-step text-to-image model, it draws from a noise image, (C, h, w), of which it ignores most, and its prompt
decides how often hair is long. The noise is seen through 64 fixed orthonormal directions, which give the latent of the
world; the prompt moves that latent along the direction of hair. A latent g + m r, with g ~ N(0, I) in d dimensions and
a unit vector r, has a direction whose coordinate along r follows a noncentral t distribution, so

    P(long) = P(T > a),    T ~ t(d - 1, m),    a = b sqrt((d - 1) / (1 - b^2)),    b = threshold / sqrt(d).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from promptgen.drawn import drawn_prompts
from promptgen.errors import ConfigError
from promptgen.generators.base import GaussianPrior
from promptgen.networks.frozen import FrozenModule
from promptgen.seeding import stream
from promptgen.world.generator import WorldGenerator, load_generator
from promptgen.world.scene import ATTRIBUTES, Scene

WEIGHTS = Path(__file__).parent / "weights" / "world-generator.safetensors"

SUBJECTS: Mapping[str, float] = {"a person": 0.0, "a nurse": 0.9, "a scientist": -0.5, "a builder": -1.0}
"""How far each subject moves the latent towards long hair, standard deviations."""

WORDS: Mapping[str, float] = {"": 0.0, " with long hair": 1.6, " with short hair": -1.6}
"""How far further words move it: a prompt is obeyed in part, and less where it contradicts its subject."""


class PromptedWorld(FrozenModule):
    """The world's generator behind a prompt and a noise image.

    Args:
        prompt: a subject of `SUBJECTS`, with words of `WORDS` behind it, such as "a builder with long hair".
        prompts: shares of several prompts in its place, one of which is drawn for each image; see `promptgen.drawn`.
        noise: shape of the noise image, (C, h, w).
        look: how far all images are moved towards one look, standard deviations of the world's latent, as if the
            generator had collapsed to it; it is the same in hair, glasses and make-up.
        seed: seed of the directions in which the noise is seen, and of the look.
        weights: file of the world's generator.

    Attributes:
        prior: N(0, I), (B, C h w), with one more coordinate that draws the prompt if there are several.
        held: trailing coordinates of the latent that draw the prompt; flows leave them as they are.
        image_shape: (3, 64, 64).
        attributes: class labels of each attribute, in the order of the true indices.

    Raises:
        ConfigError: a prompt is unknown, there is neither a prompt nor shares of several or there are both, the noise
            has fewer numbers than the world's latent, or `look` is negative or not finite.
    """

    attributes: Mapping[str, Sequence[str]] = ATTRIBUTES
    directions: Tensor
    offset: Tensor

    def __init__(
        self,
        prompt: str | None = None,
        *,
        prompts: Mapping[str, float] | None = None,
        noise: Sequence[int] = (4, 32, 32),
        look: float = 0.0,
        seed: int = 0,
        weights: Path | str = WEIGHTS,
    ) -> None:
        super().__init__()
        if (prompt is None) == (prompts is None):
            raise ConfigError("give either `prompt`, such as a nurse, or `prompts`, shares of several, and not both")
        self.drawn = drawn_prompts(prompts)
        self.held = 0 if self.drawn is None else 1
        self.shifts = {text: shift_of(text) for text in (self.drawn.labels if self.drawn else [str(prompt)])}
        self.world = cast(WorldGenerator, load_generator(Path(weights)))
        self.image_shape = self.world.image_shape
        dim, size = self.world.prior.dim, math.prod(noise)
        if size < dim:
            raise ConfigError(f"a noise image of {size} numbers is too small for the world, which needs {dim}")
        if not 0 <= look < math.inf:
            raise ConfigError(f"the look of a prompted world should be 0 or more, and finite, got {look:g}")
        self.size, self.prior = size, GaussianPrior.standard(size + self.held)
        drawn = torch.randn(size, dim, generator=stream(seed, "prompted world"), dtype=torch.float64)
        columns, upper = torch.linalg.qr(drawn)
        columns = columns * upper.diagonal().sign()
        scene = self.world.scene
        self.register_buffer("directions", columns.float())
        offset = (
            torch.tensor(list(self.shifts.values()), dtype=scene.rotation.dtype)[:, None]
            * scene.rotation[scene.index["hair"]]
        )
        self.register_buffer("offset", offset + look * _direction_of_look(scene, seed) if look else offset)
        self.freeze()

    def forward(self, latent: Tensor, *, noise: torch.Generator | None = None) -> Tensor:
        """Return images, (B, 3, 64, 64), nominally in [0, 1], of latents (B, D)."""
        image: Tensor = self.world(self.world_latent(latent), noise=noise)
        return image

    def truth(self, latent: Tensor) -> Mapping[str, Tensor]:
        """Return the true class index, (B,) int64, of each attribute of the world for latents (B, D)."""
        return self.world.truth(self.world_latent(latent))

    def world_latent(self, latent: Tensor) -> Tensor:
        """Return the latent of the world, (B, d), that noise and prompt, in latents (B, D), stand for."""
        offset = self.offset.to(latent)
        if self.drawn:
            offset = offset[self.drawn.indices(latent)]
        return latent[:, : self.size] @ self.directions.to(latent) + offset


def long_hair(generator: PromptedWorld) -> float:
    """Return the exact share of long hair under the generator's prompt, or over all its prompts, without a look."""
    drawn, by_prompt = generator.drawn, long_hair_by_prompt(generator)
    return sum(share * by_prompt[text] for text, share in drawn.shares.items()) if drawn else sum(by_prompt.values())


def long_hair_by_prompt(generator: PromptedWorld) -> dict[str, float]:
    """Return the exact share of long hair under each prompt of the generator, without a look."""
    from scipy.stats import nct, t  # slow to import

    scene = generator.world.scene
    dim = scene.config.latent_dim
    cut = float(scene.thresholds["hair"]) / math.sqrt(dim)
    limit = cut * math.sqrt((dim - 1) / (1 - cut**2))
    return {
        text: float(nct.sf(limit, dim - 1, shift) if shift else t.sf(limit, dim - 1))
        for text, shift in generator.shifts.items()
    }


def _direction_of_look(scene: Scene, seed: int) -> Tensor:
    """Return a direction of the world's latent, (d,), that changes neither hair nor glasses nor make-up."""
    kept = scene.rotation[[scene.index[name] for name in ("hair", "glasses", "makeup")]]
    drawn = torch.randn(kept.shape[1], generator=stream(seed, "look"))
    return torch.nn.functional.normalize(drawn - kept.T @ (kept @ drawn), dim=0)


def shift_of(prompt: str) -> float:
    """Return how far a prompt moves the latent towards long hair, standard deviations.

    Raises:
        ConfigError: the prompt is unknown.
    """
    for subject, shift in SUBJECTS.items():
        if prompt.startswith(subject) and (words := prompt.removeprefix(subject)) in WORDS:
            return shift + WORDS[words]
    raise ConfigError(
        f"the prompted world does not know {prompt!r}: expected one of {', '.join(SUBJECTS)}, with nothing or one of "
        f"{', '.join(word.strip() for word in WORDS if word)} behind it"
    )
