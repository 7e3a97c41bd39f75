"""The training objective: the reverse KL from the flow's distribution to the controlled one.

With ``z = f(eps)``, ``eps ~ N(0, I)``, image ``x = G(z)`` and the target density ``p*(z) = p(z) exp(-E(x, z)) / Z``,

    ``log w = log p(z) - E(x, z) - log q(z)``,    ``KL(q || p*) = log Z - E_q[log w]``,

so minus the mean of ``log w`` is the reverse KL up to a constant, and the spread of ``log w`` measures how far `q` is
from `p*`.

Wu, Motamed, Srivastava, De la Torre, "Generative Visual Prompt: Unifying Distributional Control of Pre-Trained
Generative Models", NeurIPS 2022, https://arxiv.org/abs/2209.06970
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from promptgen.conditions import split_context
from promptgen.energies.base import Energy, Sample, WeightedSum
from promptgen.errors import DataError, NonFiniteEnergyError
from promptgen.flows.config import Estimator as Estimator
from promptgen.flows.flow import Flow, standard_log_prob
from promptgen.generators.base import Generator, conditioned_images


@dataclass(frozen=True)
class Loss:
    """The objective on one batch. Only `value` carries a gradient.

    Attributes:
        value: reverse KL minus ``log Z``, nats, scalar.
        log_w: log importance weights, nats, (B,).
        parts: the weighted terms of the energy, nats, (B,), by name.
        sample: the samples that the energies were evaluated on.
    """

    value: Tensor
    log_w: Tensor
    parts: dict[str, Tensor]
    sample: Sample


def reverse_kl(
    flow: Flow,
    generator: Generator,
    energy: Energy,
    eps: Tensor,
    *,
    context: Tensor | None = None,
    estimator: Estimator = "path",
    rng: torch.Generator | None = None,
) -> Loss:
    """Compute ``mean(log q(z) - log p(z) + E(G(z)))`` at ``z = f(eps; c)``; the prior `p` is the generator's.

    Both estimators have the same value and the same mean gradient. "plain" differentiates through everything. "path"
    omits the derivative of ``log q`` with respect to the flow's parameters, whose mean is zero, so its variance
    vanishes as `q` approaches `p*` (Roeder, Wu, Duvenaud, "Sticking the landing", 2017,
    https://arxiv.org/abs/1703.09194; Vaitl, Nicoli, Nakajima, Kessel, 2022, https://arxiv.org/abs/2207.08219).

    Args:
        flow: the flow `f`, whose parameters receive the gradient.
        generator: the frozen generator `G`.
        energy: control energy, nats.
        eps: standard normal noise, (B, D).
        context: conditions, (B, C): the generator's coordinates, if any, followed by the flow's.
        estimator: "path" or "plain".
        rng: random stream for stochastic energies.

    Raises:
        NonFiniteEnergyError: a term of the energy, or the flow's density, is NaN or infinite for a sample.
    """
    below, flow_context = split_context(context, flow.context_dim)
    latent, log_det = flow(eps, flow_context)
    image = conditioned_images(generator, latent, below)
    sample = Sample(latent, image, context, anchor_images(flow, generator, energy, eps), rng)
    parts = energy_parts(energy, sample)
    log_q = path_log_prob(flow, latent, flow_context) if estimator == "path" else standard_log_prob(eps) - log_det
    log_w = generator.prior.log_prob(latent) - torch.stack(list(parts.values())).sum(dim=0) - log_q
    # Without its graph, a sample that is kept does not keep the generator's activations.
    anchor = None if sample.anchor is None else sample.anchor.detach()
    detached = Sample(sample.latent.detach(), sample.image.detach(), sample.context, anchor, sample.rng)
    loss = Loss(-log_w.mean(), log_w.detach(), {name: part.detach() for name, part in parts.items()}, detached)
    _require_finite(loss)
    return loss


def log_weight(
    flow: Flow,
    generator: Generator,
    energy: Energy,
    eps: Tensor,
    *,
    context: Tensor | None = None,
    rng: torch.Generator | None = None,
) -> Tensor:
    """Return ``log w``, nats, (B,), at ``z = f(eps; c)``, without gradients; see `reverse_kl` for the arguments."""
    with torch.no_grad():
        return reverse_kl(flow, generator, energy, eps, context=context, estimator="plain", rng=rng).log_w


def join(losses: Sequence[Loss]) -> Loss:
    """Return the losses of several batches as the loss of one; its `value` carries no gradient."""
    if len(losses) == 1:
        return losses[0]
    log_w = torch.cat([loss.log_w for loss in losses])
    parts = {name: torch.cat([loss.parts[name] for loss in losses]) for name in losses[0].parts}
    samples = [loss.sample for loss in losses]
    sample = Sample(
        torch.cat([sample.latent for sample in samples]),
        torch.cat([sample.image for sample in samples]),
        _cat([sample.context for sample in samples]),
        _cat([sample.anchor for sample in samples]),
    )
    return Loss(-log_w.mean(), log_w, parts, sample)


def anchor_images(flow: Flow, generator: Generator, energy: Energy, eps: Tensor) -> Tensor | None:
    """Return the images of the same noise under the null condition, (B, 3, H, W), if the energy needs them."""
    if not getattr(energy, "needs_anchor", False):
        return None
    return generator(flow(eps, flow.null_context(len(eps)))[0])


def energy_parts(energy: Energy, sample: Sample) -> dict[str, Tensor]:
    """Return the terms of a weighted sum by name, nats, (B,); any other energy is a single term named "energy".

    Raises:
        DataError: a term is not one number per sample, which would otherwise broadcast silently.
    """
    parts = energy.parts(sample) if isinstance(energy, WeightedSum) and energy.terms else {"energy": energy(sample)}
    expected = (len(sample.latent),)
    for name, part in parts.items():
        if part.shape != expected:
            raise DataError(f"energy {name} must return one number per sample, {expected}, got {tuple(part.shape)}")
    return parts


def non_finite(names: list[str]) -> NonFiniteEnergyError:
    """Return the error that says which quantities, by `names`, are not finite."""
    return NonFiniteEnergyError(f"{' and '.join(names)} became NaN or infinite: lower the learning rate or the weight")


def _require_finite(loss: Loss) -> None:
    """Raise an error that names the cause if a weight of the batch is not finite."""
    if bool(loss.log_w.isfinite().all()):
        return
    bad = [f"energy {name}" for name, part in loss.parts.items() if not bool(part.isfinite().all())]
    if not bool(loss.sample.latent.isfinite().all()):
        bad = ["the flow"]
    raise non_finite(bad or ["the density of the flow"])


class _LogProb(nn.Module):
    """A flow's log density as the `forward` of a module, which `functional_call` requires."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, latent: Tensor, context: Tensor | None) -> Tensor:
        return self.flow.log_prob(latent, context)


def path_log_prob(flow: Flow, latent: Tensor, context: Tensor | None) -> Tensor:
    """Return ``log q(z)``, (B,), with the flow's parameters held constant: only `latent` carries a gradient."""
    density = _LogProb(flow)
    constants = {name: parameter.detach() for name, parameter in density.named_parameters()}
    log_q: Tensor = torch.func.functional_call(density, constants, (latent, context))
    return log_q


def _cat(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate a field that is present in all batches or in none."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None
