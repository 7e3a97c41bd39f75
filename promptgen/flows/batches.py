"""Samples of a flow in batches that fit into memory: losses for training, log weights for selection and reports.

Every draw is addressed by the seed and the names of its stream, so the same names reproduce the same samples.
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
from promptgen.networks.distributed import gathered, rank, share
from promptgen.seeding import stream


@dataclass(frozen=True)
class Batches:
    """A flow, its target, and the size of the batches.

    Attributes:
        flow: the flow; samples have its device and floating-point type.
        generator: the frozen generator.
        energy: control energy, nats.
        seed: seed of the experiment.
        size: largest number of samples per pass through the generator.
    """

    flow: Flow
    generator: Generator
    energy: Energy
    seed: int
    size: int

    @property
    def condition(self) -> Condition:
        """Coordinates that are drawn besides the noise: the generator's, followed by the flow's."""
        return condition_of(self.generator) + self.flow.condition

    @property
    def images_per_sample(self) -> int:
        """Number of images per sample: two if an energy compares it with the null condition, else one."""
        return 2 if getattr(self.energy, "needs_anchor", False) else 1

    def losses(self, n: int, *names: str | int, estimator: Estimator = "path") -> Iterator[Loss]:
        """Yield the losses of this process's share of `n` samples from the stream `names`, batch by batch.

        Raises:
            NonFiniteEnergyError: an energy or the flow's density is NaN or infinite.
        """
        for eps, context, rng in self._draws(n, *names):
            yield reverse_kl(self.flow, self.generator, self.energy, eps, context=context, estimator=estimator, rng=rng)

    def log_weights(self, n: int, *names: str | int) -> Tensor:
        """Return the log weights, nats, (n,), of samples from the stream `names`; processes divide them among them.

        Raises:
            NonFiniteEnergyError: an energy or the flow's density is NaN or infinite.
        """
        return gathered(
            torch.cat(
                [
                    log_weight(self.flow, self.generator, self.energy, eps, context=context, rng=rng)
                    for eps, context, rng in self._draws(n, *names)
                ]
            )
        )

    def bad_gradients(self, n: int, *names: str | int) -> list[str]:
        """Return the names of energy terms whose gradient at the latents or anchors is not finite for some sample."""
        bad: set[str] = set()
        for eps, context, rng in self._draws(n, *names):
            below, flow_context = split_context(context, self.flow.context_dim)
            latent = self.flow(eps, flow_context)[0].detach().requires_grad_()
            anchor = anchor_images(self.flow, self.generator, self.energy, eps)
            anchor = None if anchor is None else anchor.detach().requires_grad_()
            inputs = [latent] if anchor is None else [latent, anchor]
            image = conditioned_images(self.generator, latent, below)
            parts = energy_parts(self.energy, Sample(latent, image, context, anchor, rng))
            bad |= {name for name, part in parts.items() if not _has_finite_gradients(part, inputs)}
        return sorted(bad)

    def _draws(self, n: int, *names: str | int) -> Iterator[tuple[Tensor, Tensor | None, torch.Generator]]:
        """Yield noise (B, D), conditions (B, C) and the energies' random stream, batch by batch.

        Noise and conditions are drawn on the CPU all at once, so they depend neither on the batch size nor on the
        number of processes, each of which gets its share. The energies of each process have a stream of their own.
        """
        like, condition = next(self.flow.parameters()), self.condition
        eps = torch.randn(n, self.flow.dim, generator=stream(self.seed, *names), dtype=like.dtype).to(like.device)
        context = condition.sample(n, stream(self.seed, *names, "context")).to(like) if condition else None
        rng = stream(self.seed, *names, "energy", *([rank()] if rank() else []))
        portion = share(n)
        for start in range(portion.start, portion.stop, self.size):
            part = slice(start, min(start + self.size, portion.stop))
            yield eps[part], None if context is None else context[part], rng


def _has_finite_gradients(part: Tensor, inputs: list[Tensor]) -> bool:
    """Return whether a term, (B,), has finite gradients at all `inputs`; it need not depend on them."""
    if not part.requires_grad:
        return True
    gradients = torch.autograd.grad(part.sum(), inputs, retain_graph=True, allow_unused=True)
    return all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients)
