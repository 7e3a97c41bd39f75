"""A small network that predicts features of images from their latents, so that a flow can be trained without images.

What a model sees depends on few directions of the latent. Recorded gradients show which: the eigenvectors of the mean
outer product of normalised gradients, the *active directions* (`promptgen.evaluations.directions`). The network sees
the latent in these coordinates, each scaled by the root of its eigenvalue, and is trained on values and on gradients.

W. M. Czarnecki et al., "Sobolev training for neural networks", NeurIPS 2017, https://arxiv.org/abs/1706.04859
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from promptgen.evaluations.directions import DENSE, active_directions
from promptgen.seeding import stream

Kind = Literal["values", "probabilities"]
"""What features are: any numbers, or the probabilities of classes."""

SHOWN = 0.8
"""Fraction of the records that each member is fitted to."""

MEMBERS = 5
"""Networks in the ensemble; their mean predicts."""

STEPS, BATCH, WIDTH, LAYERS, LEARNING_RATE, WEIGHT_DECAY = 1600, 64, 96, 3, 3e-3, 1e-2
GRADIENT_WEIGHT, DENSE_GRADIENT_WEIGHT = 0.02, 0.05
"""Weight of the error of gradients relative to the error of values; and where nearly all directions are active, so that
a gradient tells more than further values."""

HELD_OUT = 0.1
"""Fraction of the records that measures how well the network predicts."""


@dataclass(frozen=True)
class Records:
    """What a surrogate is fitted to: features of N images.

    Attributes:
        latent: latents, (N, D).
        context: conditions, (N, C) with C = 0 if there are none.
        features: the features, (N, J).
        direction: the combination of features whose gradient is known, (N, J); zeros for records without a gradient.
        gradient: its gradient with respect to the latent, (N, D); zeros likewise.
    """

    latent: Tensor
    context: Tensor
    features: Tensor
    direction: Tensor
    gradient: Tensor

    def __len__(self) -> int:
        return len(self.latent)

    def __getitem__(self, rows: Tensor) -> Records:
        return Records(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Surrogate:
    """Predicts features from latents.

    Attributes:
        kind: what the features are.
        directions: active directions, orthonormal columns, (D, R), in units of the prior; none, (D, 0), if the network
            sees the whole latent.
        dense: whether nearly all directions are active.
        basis: maps latents to the network's coordinates, (D, R); or a factor for each coordinate, (R,), of the whole
            latent.
        context_scale: largest absolute value of each coordinate of the condition, (C,).
        network: the ensemble.
        centre: mean of the features, (J,); zeros for probabilities.
        spread: their standard deviation, (J,); ones for probabilities.
        held: number of last coordinates of the latent, such as that of a class, that no direction has and the network
            sees as they are.
        error: error on records that were held out: of values, the root mean square in units of `spread`; of
            probabilities, the fraction of wrong labels.
    """

    kind: Kind
    directions: Tensor
    dense: bool
    basis: Tensor
    context_scale: Tensor
    network: Ensemble
    centre: Tensor
    spread: Tensor
    held: int
    error: float

    def __call__(self, latent: Tensor, context: Tensor | None = None) -> Tensor:
        """Return predicted features, (B, J), of latents, (B, D), under conditions, (B, C)."""
        return self.members(latent, context).mean(dim=0)

    def along(self, directions: Tensor, scale: Tensor) -> Surrogate:
        """Return this surrogate of coordinates along orthonormal directions, (D, S), whose span holds its own.

        Args:
            directions: the directions, in units of the prior.
            scale: standard deviations of the latent's prior, (D,).
        """
        basis = directions.T @ (self.basis * scale[:, None])
        return replace(self, directions=directions.T @ self.directions, basis=basis)

    def members(self, latent: Tensor, context: Tensor | None = None) -> Tensor:
        """Return what each member of the ensemble predicts, (M, B, J)."""
        inputs = torch.cat([_along(self.basis, latent), latent[:, latent.shape[1] - self.held :]], dim=1)
        if context is not None:
            inputs = torch.cat([inputs, context / self.context_scale], dim=1)
        outputs: Tensor = self.network(inputs.expand(self.network.members, -1, -1))
        return outputs.softmax(dim=2) if self.kind == "probabilities" else outputs * self.spread + self.centre


class Ensemble(nn.Module):
    """Perceptrons of equal shape, computed together.

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
        members: number of perceptrons.
        rng: stream of the initial weights.
    """

    def __init__(self, inputs: int, outputs: int, members: int, rng: torch.Generator) -> None:
        super().__init__()
        self.members = members
        sizes = [inputs, *[WIDTH] * LAYERS, outputs]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for left, right in pairwise(sizes):
            bound = 1 / math.sqrt(left)
            self.weights.append(torch.empty(members, left, right).uniform_(-bound, bound, generator=rng))
            self.biases.append(torch.empty(members, 1, right).uniform_(-bound, bound, generator=rng))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs, (M, B, J), of inputs, (M, B, R)."""
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            inputs = torch.baddbmm(bias, F.silu(inputs) if number else inputs, weight)
        return inputs


def fit_surrogate(
    records: Records,
    kind: Kind,
    scale: Tensor,
    *,
    seed: int,
    steps: int = STEPS,
    held: int = 0,
    rank: int | None = None,
) -> Surrogate:
    """Fit a surrogate.

    Without any gradient in the records, a first surrogate is fitted on the whole latent, and its gradients stand in for
    those of the images in finding the active directions.

    Args:
        records: what is known.
        kind: what the features are.
        scale: standard deviations of the latent's prior, (D,).
        seed: seed of the weights, the batches and the held-out records.
        steps: optimiser steps.
        held: see `Surrogate`.
        rank: number of active directions; None chooses it by their eigenvalues.
    """
    order = torch.randperm(len(records), generator=stream(seed, "surrogate", "held-out")).to(records.latent.device)
    cut = max(1, round(HELD_OUT * len(order)))
    held_out, training = records[order[:cut]], records[order[cut:]]
    gradient = records.gradient
    if not bool(gradient.any()):
        rough = _fit(training, kind, scale, None, seed, max(1, steps // 2), held)
        gradient = _gradients(rough, records, stream(seed, "surrogate", "directions"))
    free = len(scale) - held
    directions, weights = active_directions(gradient[:, :free], scale[:free], rank)
    active = F.pad(directions, (0, 0, 0, held)), weights
    surrogate = _fit(training, kind, scale, active, seed, steps, held)
    with torch.no_grad():
        predicted = surrogate(held_out.latent, held_out.context)
    if kind == "probabilities":
        error = (predicted.argmax(dim=1) != held_out.features.argmax(dim=1)).double().mean()
    else:
        error = ((predicted - held_out.features) / surrogate.spread).square().mean().sqrt()
    return replace(surrogate, error=float(error))


def _fit(
    records: Records, kind: Kind, scale: Tensor, active: tuple[Tensor, Tensor] | None, seed: int, steps: int, held: int
) -> Surrogate:
    """Train the ensemble along the active directions, or on the whole latent; each member sees its own batches."""
    if active is None:  # without an identity matrix, which would take 1 GiB at 16,384 dimensions
        free = scale[: len(scale) - held]
        directions, weights, basis = scale.new_empty(len(scale), 0), torch.ones_like(free), 1 / free
        slopes = records.gradient[:, : len(free)] * free
    else:
        directions, weights = active
        basis = directions / scale[:, None] * weights
        slopes = (records.gradient * scale) @ directions  # along the directions, per unit of the prior
    features = records.features
    if kind == "probabilities":
        centre, spread = torch.zeros_like(features[0]), torch.ones_like(features[0])
    else:
        centre, spread = features.mean(dim=0), features.std(dim=0) + 1e-6
    context_scale = records.context.abs().amax(dim=0).clamp(min=1e-12)
    seen = records.latent[:, len(scale) - held :]
    inputs = torch.cat([_along(basis, records.latent), seen, records.context / context_scale], dim=1)
    rank = len(weights)
    dense = rank > DENSE * (len(scale) - held)
    gradient_weight = DENSE_GRADIENT_WEIGHT if dense else GRADIENT_WEIGHT
    has_slope = bool(records.direction.any())
    size = slopes.norm(dim=1, keepdim=True) + spread.mean()
    network = Ensemble(inputs.shape[1], features.shape[1], MEMBERS, stream(seed, "surrogate", "weights")).to(inputs)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    batches = stream(seed, "surrogate", "batches")
    # Each member leaves out another part of the records, so that members differ where records are few.
    shown = max(1, round(len(records) * SHOWN))
    firsts = torch.arange(MEMBERS)[:, None] * len(records) // MEMBERS
    for _ in range(steps):
        batch = torch.randint(0, shown, (MEMBERS, min(BATCH, shown)), generator=batches)
        batch = (batch + firsts).remainder(len(records)).to(inputs.device)
        point = inputs[batch].requires_grad_(has_slope)
        output = network(point)
        if kind == "probabilities":
            loss = -(features[batch] * output.log_softmax(dim=2)).sum(dim=2).mean(dim=1).sum()
            output = output.softmax(dim=2)
        else:
            loss = F.smooth_l1_loss(output, (features[batch] - centre) / spread, reduction="none").mean((1, 2)).sum()
        if has_slope:
            direction = records.direction[batch]
            (slope,) = torch.autograd.grad((direction * spread * output).sum(), point, create_graph=True)
            error = (slope[..., :rank] * weights - slopes[batch]) / size[batch]
            known = direction.any(dim=2, keepdim=True)
            loss = loss + gradient_weight * (known * error.square()).sum(dim=2).mean(dim=1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.requires_grad_(False)
    return Surrogate(kind, directions, dense, basis, context_scale, network, centre, spread, held, math.nan)


def _along(basis: Tensor, latent: Tensor) -> Tensor:
    """Return the coordinates, (N, R), of latents along a basis; see `Surrogate`."""
    return latent @ basis if basis.ndim == 2 else latent[:, : len(basis)] * basis


def _gradients(surrogate: Surrogate, records: Records, rng: torch.Generator) -> Tensor:
    """Return gradients, (N, D), of random combinations of the predicted features."""
    point = records.latent.clone().requires_grad_()
    output = surrogate(point, records.context)
    direction = torch.randn(output.shape, generator=rng, dtype=output.dtype).to(output)
    (gradient,) = torch.autograd.grad((direction * output).sum(), point)
    return gradient
