"""Drawing from a generator: seeded, in batches, with memory that does not grow with the number of samples.

Latents are drawn in blocks of fixed size, each from its own random stream, addressed by (seed, stream, block). So
sample number i is the same whatever the batch size, however many samples are asked for, and wherever a run stopped.
The conditions of a conditional generator are drawn likewise, from streams of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from promptgen import seeding
from promptgen.conditions import Condition
from promptgen.energies.base import Sample
from promptgen.errors import DataError, NonFiniteEnergyError, TooFewSamplesError
from promptgen.generators.base import GaussianPrior, Generator, condition_of, conditioned_images

BLOCK = 256
"""Latents per block. Changing it changes every sample."""


def latent_blocks(prior: GaussianPrior, n: int, seed: int, stream_name: str, block: int = BLOCK) -> Iterator[Tensor]:
    """Yield `n` latents of `prior` in blocks (block, D), the last one cut to what is left.

    A block is always drawn whole, so the first samples do not depend on `n`.

    Args:
        prior: distribution of the latent.
        n: number of latents in all.
        seed: seed of the experiment.
        stream_name: what the samples are for, such as ``"evaluate"``; other names give independent latents.
        block: latents per block.
    """
    for index, start in enumerate(range(0, n, block)):
        yield prior.sample(block, seeding.stream(seed, stream_name, index))[: n - start]


def condition_blocks(condition: Condition, n: int, seed: int, stream_name: str, block: int = BLOCK) -> Iterator[Tensor]:
    """Yield `n` conditions from a box in blocks (block, C) float64; like `latent_blocks`, and independent of those."""
    for index, start in enumerate(range(0, n, block)):
        yield condition.sample(block, seeding.stream(seed, stream_name, "condition", index))[: n - start]


def draw(
    generator: Generator,
    n: int,
    *,
    seed: int,
    stream: str,
    batch: int = 64,
    given: Mapping[str, float] | None = None,
) -> Iterator[Sample]:
    """Yield `n` samples in batches, without gradient: latents, images, and the conditions of a conditional generator.

    Args:
        generator: frozen generator; random noise inside it stays fixed.
        n: number of samples in all.
        seed: seed of the experiment.
        stream: what the samples are for.
        batch: most samples at a time; a batch never reaches over the end of a block of latents.
        given: values of coordinates of the condition by name, for all samples; the others are drawn from their ranges.

    Raises:
        DataError: the generator has no such coordinate.
    """
    condition = condition_of(generator)
    blocks = zip(
        latent_blocks(generator.prior, n, seed, stream), condition_blocks(condition, n, seed, stream), strict=True
    )
    for latents, drawn in blocks:
        contexts = condition.fix(drawn, given or {}).to(latents)
        for latent, context in zip(torch.split(latents, batch), torch.split(contexts, batch), strict=True):
            told = context if condition else None
            with torch.inference_mode():
                image = conditioned_images(generator, latent, told)
            yield Sample(latent, image, told)


def generate(
    generator: Generator,
    n: int,
    *,
    seed: int,
    stream: str,
    batch: int = 64,
    given: Mapping[str, float] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `draw` does as pairs of latents (B, D) and images (B, 3, H, W)."""
    for sample in draw(generator, n, seed=seed, stream=stream, batch=batch, given=given):
        yield sample.latent, sample.image


@torch.inference_mode()
def sweep(
    generator: Generator, rows: int, *, seed: int, stream: str, steps: int, batch: int = 64
) -> tuple[Tensor, Tensor]:
    """Show the same latents under conditions that run over their ranges, one coordinate after the other.

    Args:
        generator: a conditional generator.
        rows: number of latents.
        seed: seed of the experiment.
        stream: what the samples are for.
        steps: conditions per coordinate.
        batch: most images at a time.

    Returns:
        Images, (rows, C * steps, 3, H, W), and their conditions, (C * steps, C).
    """
    conditions = condition_of(generator).sweep(steps)
    latents = torch.cat(list(latent_blocks(generator.prior, rows, seed, stream)))
    told = conditions.to(latents).repeat(rows, 1)  # (rows * columns, C)
    repeated = latents.repeat_interleave(len(conditions), dim=0)
    pairs = zip(torch.split(repeated, batch), torch.split(told, batch), strict=True)
    images = torch.cat([conditioned_images(generator, latent, context) for latent, context in pairs])
    return images.reshape(rows, len(conditions), *images.shape[1:]), conditions


def importance_resample(log_weight: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """Choose `n` of M samples in proportion to their weights (sampling importance resampling, systematic).

    The chosen samples follow the controlled distribution up to an error that vanishes as M grows.

    Args:
        log_weight: ``log p(z) - E - log q(z)`` in nats, (M,).
        n: how many to choose; far fewer than the effective sample size, or some repeat.
        rng: random stream.

    Returns:
        Indices, (n,), int64, in random order.
    """
    weight = _checked(log_weight).softmax(dim=0)
    offset = torch.rand((), generator=rng, dtype=torch.float64)
    points = (torch.arange(n, dtype=torch.float64) + offset) / n
    indices = torch.searchsorted(weight.cumsum(dim=0), points).clamp(max=len(weight) - 1)
    return indices[torch.randperm(n, generator=rng)]


def metropolis(log_weight: Tensor, rng: torch.Generator) -> Tensor:
    """Run independent Metropolis-Hastings over M samples of the flow, taken as proposals one after the other.

    Args:
        log_weight: ``log p(z) - E - log q(z)`` in nats, (M,).
        rng: random stream.

    Returns:
        Index of the sample the chain stands at after each proposal, (M,), int64. The chain's stationary distribution is
        exactly the controlled one; its first steps depend on where it started.
    """
    weight = _checked(log_weight)
    threshold = torch.rand(len(weight), generator=rng, dtype=torch.float64).log().tolist()
    values, state, chain = weight.tolist(), 0, []
    for proposal, log_weight_of_proposal in enumerate(values):
        if threshold[proposal] <= log_weight_of_proposal - values[state]:
            state = proposal
        chain.append(state)
    return torch.tensor(chain, dtype=torch.int64)


def _checked(log_weight: Tensor) -> Tensor:
    if log_weight.ndim != 1:
        raise DataError(f"log weights must be a vector, got shape {tuple(log_weight.shape)}")
    if not len(log_weight):
        raise TooFewSamplesError("exact sampling needs at least one weighted sample, got none")
    if not bool(log_weight.isfinite().all()):
        raise NonFiniteEnergyError("a log weight is not finite: look at the energies of these samples one by one")
    return log_weight.detach().double().cpu()
