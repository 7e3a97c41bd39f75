"""Samples of a flow in batches that fit into memory: losses to train on, log weights to choose and report by.

Every draw is addressed by the seed and the names of its stream, so the same names give the same samples again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from promptgen.conditions import Condition, split_context
from promptgen.energies.base import Energy, Sample
from promptgen.flows.flow import Flow
from promptgen.flows.objective import Estimator, Loss, anchor_images, energy_parts, log_weight, reverse_kl
from promptgen.generators.base import Generator, condition_of, conditioned_images
from promptgen.seeding import stream


@dataclass(frozen=True)
class Batches:
    """What a flow is sampled for.

    Attributes:
        flow: the flow; its device and type are those of all samples.
        generator: the frozen generator.
        energy: what is wanted, nats.
        seed: seed of the experiment.
        size: most samples that go through the generator at a time.
    """

    flow: Flow
    generator: Generator
    energy: Energy
    seed: int
    size: int

    @property
    def condition(self) -> Condition:
        """What is drawn besides the noise: the conditions that the generator takes, and then those of the flow."""
        return condition_of(self.generator) + self.flow.condition

    @property
    def images_per_sample(self) -> int:
        """How many images a sample takes: two if an energy compares it with the null condition."""
        return 2 if getattr(self.energy, "needs_anchor", False) else 1

    def losses(self, n: int, *names: str | int, estimator: Estimator = "path") -> Iterator[Loss]:
        """Yield the losses of `n` samples from the stream called `names`, batch by batch.

        Raises:
            NonFiniteEnergyError: an energy or the flow's density is NaN or infinite.
        """
        for eps, context, rng in self._draws(n, *names):
            yield reverse_kl(self.flow, self.generator, self.energy, eps, context=context, estimator=estimator, rng=rng)

    def log_weights(self, n: int, *names: str | int) -> Tensor:
        """Return the log weights, nats, (n,), of samples from the stream called `names`.

        Raises:
            NonFiniteEnergyError: an energy or the flow's density is NaN or infinite.
        """
        return torch.cat(
            [
                log_weight(self.flow, self.generator, self.energy, eps, context=context, rng=rng)
                for eps, context, rng in self._draws(n, *names)
            ]
        )

    def bad_gradients(self, n: int, *names: str | int) -> list[str]:
        """Return the terms of the energy whose gradient by latents or anchors is not finite for some sample."""
        bad: set[str] = set()
        for eps, context, rng in self._draws(n, *names):
            below, own = split_context(context, self.flow.context_dim)
            latent = self.flow(eps, own)[0].detach().requires_grad_()
            anchor = anchor_images(self.flow, self.generator, self.energy, eps)
            anchor = None if anchor is None else anchor.detach().requires_grad_()
            inputs = [latent] if anchor is None else [latent, anchor]
            image = conditioned_images(self.generator, latent, below)
            parts = energy_parts(self.energy, Sample(latent, image, context, anchor, rng))
            bad |= {name for name, part in parts.items() if not _has_finite_gradients(part, inputs)}
        return sorted(bad)

    def _draws(self, n: int, *names: str | int) -> Iterator[tuple[Tensor, Tensor | None, torch.Generator]]:
        """Yield noise (B, D), conditions (B, C) and the energies' random stream, batch by batch.

        Noise and conditions do not depend on the size of the batches: they are drawn on the CPU all at once.
        """
        like, condition = next(self.flow.parameters()), self.condition
        eps = torch.randn(n, self.flow.dim, generator=stream(self.seed, *names), dtype=like.dtype).to(like.device)
        context = condition.sample(n, stream(self.seed, *names, "context")).to(like) if condition else None
        rng = stream(self.seed, *names, "energy")
        for start in range(0, n, self.size):
            part = slice(start, start + self.size)
            yield eps[part], None if context is None else context[part], rng


def _has_finite_gradients(part: Tensor, inputs: list[Tensor]) -> bool:
    """Say whether one term, (B,), has finite gradients by all `inputs`; a term may depend on none of them."""
    if not part.requires_grad:
        return True
    gradients = torch.autograd.grad(part.sum(), inputs, retain_graph=True, allow_unused=True)
    return all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients)
