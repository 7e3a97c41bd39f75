"""Draw samples from a generator: seeded, in batches, with memory that does not grow with the number of samples.

Latents are drawn in blocks of fixed size, each from its own random stream, addressed by (seed, stream, block). Sample
number i is therefore the same whatever the batch size, the total number of samples, and the point where a run resumed.
The conditions of a conditional generator are drawn the same way, from separate streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from promptgen import seeding
from promptgen.conditions import Condition
from promptgen.energies.base import Sample
from promptgen.generators.base import GaussianPrior, Generator, condition_of, conditioned_images

BLOCK = 256
"""Latents per block. Changing it changes every sample."""


def latent_blocks(
    prior: GaussianPrior, n: int, seed: int, stream_name: str, block: int = BLOCK, start: int = 0
) -> Iterator[Tensor]:
    """Yield `n` latents of `prior` in blocks (block, D), the last one cut to the remainder.

    Blocks are always drawn whole, so the first samples do not depend on `n`.

    Args:
        prior: distribution of the latent.
        n: total number of latents.
        seed: seed of the experiment.
        stream_name: purpose of the samples, such as ``"evaluate"``; different names give independent latents.
        block: latents per block.
        start: number of the first latent, a multiple of `block`; those before it are left out.
    """
    for begin in range(start, n, block):
        yield prior.sample(block, seeding.stream(seed, stream_name, begin // block))[: n - begin]


def condition_blocks(
    condition: Condition, n: int, seed: int, stream_name: str, block: int = BLOCK, start: int = 0
) -> Iterator[Tensor]:
    """Yield `n` random conditions in blocks (block, C) float64, independent of the latents of `latent_blocks`."""
    for begin in range(start, n, block):
        yield condition.sample(block, seeding.stream(seed, stream_name, "condition", begin // block))[: n - begin]


def draw(
    generator: Generator,
    n: int,
    *,
    seed: int,
    stream: str,
    batch: int = 64,
    condition: Mapping[str, float] | None = None,
    start: int = 0,
) -> Iterator[Sample]:
    """Yield `n` samples in batches, without gradients: latents, images, and conditions if the generator takes any.

    Args:
        generator: frozen generator; random noise inside it stays fixed.
        n: total number of samples.
        seed: seed of the experiment.
        stream: purpose of the samples; different names give independent samples.
        batch: largest number of samples at a time; a batch never crosses the end of a block of latents.
        condition: values of named coordinates of the condition, the same for all samples. The remaining coordinates
            are drawn from their ranges.
        start: number of the first sample, a multiple of `BLOCK`; those before it are left out.

    Raises:
        DataError: the generator has no coordinate of that name.

    Example:
        >>> class Brightness:
        ...     prior, image_shape = GaussianPrior.standard(2), (3, 4, 4)
        ...     def __call__(self, latent, *, noise=None):
        ...         return latent[:, :1, None, None].sigmoid().expand(-1, 3, 4, 4)
        >>> [tuple(sample.image.shape) for sample in draw(Brightness(), 3, seed=1, stream="example", batch=2)]
        [(2, 3, 4, 4), (1, 3, 4, 4)]
    """
    box = condition_of(generator)
    blocks = zip(
        latent_blocks(generator.prior, n, seed, stream, start=start),
        condition_blocks(box, n, seed, stream, start=start),
        strict=True,
    )
    for latents, random_conditions in blocks:
        conditions = box.fix(random_conditions, condition or {}).to(latents)
        for latent, part in zip(torch.split(latents, batch), torch.split(conditions, batch), strict=True):
            context = part if box else None
            with torch.inference_mode():
                image = conditioned_images(generator, latent, context)
            yield Sample(latent, image, context)


def generate(
    generator: Generator,
    n: int,
    *,
    seed: int,
    stream: str,
    batch: int = 64,
    condition: Mapping[str, float] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the samples of `draw` as pairs of latents (B, D) and images (B, 3, H, W).

    Example:
        The batch size does not change the samples:

        >>> class Brightness:
        ...     prior, image_shape = GaussianPrior.standard(2), (3, 4, 4)
        ...     def __call__(self, latent, *, noise=None):
        ...         return latent[:, :1, None, None].sigmoid().expand(-1, 3, 4, 4)
        >>> one_by_one = generate(Brightness(), 4, seed=1, stream="example", batch=1)
        >>> ((latents, images),) = generate(Brightness(), 4, seed=1, stream="example", batch=4)
        >>> torch.equal(torch.cat([latent for latent, _ in one_by_one]), latents)
        True
    """
    for sample in draw(generator, n, seed=seed, stream=stream, batch=batch, condition=condition):
        yield sample.latent, sample.image


@torch.inference_mode()
def sweep(
    generator: Generator, rows: int, *, seed: int, stream: str, steps: int, batch: int = 64
) -> tuple[Tensor, Tensor]:
    """Render the same latents while the condition sweeps its ranges, one coordinate after another.

    Args:
        generator: conditional generator.
        rows: number of latents.
        seed: seed of the experiment.
        stream: purpose of the samples.
        steps: conditions per coordinate.
        batch: largest number of images at a time.

    Returns:
        Images, (rows, C * steps, 3, H, W), and their conditions, (C * steps, C).
    """
    conditions = condition_of(generator).sweep(steps)
    latents = torch.cat(list(latent_blocks(generator.prior, rows, seed, stream)))
    contexts = conditions.to(latents).repeat(rows, 1)  # (rows * columns, C)
    repeated = latents.repeat_interleave(len(conditions), dim=0)
    pairs = zip(torch.split(repeated, batch), torch.split(contexts, batch), strict=True)
    images = torch.cat([conditioned_images(generator, latent, context) for latent, context in pairs])
    return images.reshape(rows, len(conditions), *images.shape[1:]), conditions
