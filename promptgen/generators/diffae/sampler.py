"""Deterministic DDIM: from noise to data in a few steps of a long schedule, differentiable in bounded memory.

The time steps ``t_1 < ... < t_T`` are taken from the full schedule; `a(t)` is the fraction of the data's variance left.
The noise `e` that the network predicts in `x` gives an estimate of the clean data and of the data one step less noisy:

    clean = (x - sqrt(1 - a(t_i)) e) / sqrt(a(t_i))
    x'    = sqrt(a(t_{i-1})) clean + sqrt(1 - a(t_{i-1})) e      with a(t_0) = 1

Source: *Denoising Diffusion Implicit Models* (Song, Meng, Ermon, ICLR 2021, https://arxiv.org/abs/2010.02502),
equation 12 with sigma = 0. An independent implementation.
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from promptgen.generators.diffae.config import NoiseSchedule


class NoisePredictor(Protocol):
    """Predicts the noise, (B, ...), in noisy data, (B, ...), at a time step of the full schedule, under conditions."""

    def __call__(self, x: Tensor, step: int, *conditions: Tensor) -> Tensor: ...


def denoise(
    predict: NoisePredictor,
    noise: Tensor,
    schedule: NoiseSchedule,
    steps: int,
    *conditions: Tensor,
    clip: bool,
    checkpointing: bool,
) -> Tensor:
    """Return the data, (B, ...), that the sampler produces from noise of the same shape.

    Args:
        predict: the noise predictor.
        noise: standard normal noise, (B, ...).
        schedule: noise schedule of the predictor's training.
        steps: number of sampling steps, see `NoiseSchedule.spaced`.
        conditions: further inputs of the predictor.
        clip: whether the clean data of every step are clipped to [-1, 1].
        checkpointing: whether the backward pass recomputes each step, so that only one step's activations are in
            memory at a time.
    """
    retained, times = schedule.retained, schedule.spaced(steps)

    def step(x: Tensor, index: int, *conditions: Tensor) -> Tensor:
        before = retained[times[index - 1]] if index else 1.0
        return step_back(x, predict(x, times[index], *conditions), retained[times[index]], before, clip=clip)

    x = noise
    for index in reversed(range(steps)):
        if checkpointing:
            x = checkpoint(step, x, index, *conditions, use_reentrant=False, preserve_rng_state=False)
        else:
            x = step(x, index, *conditions)
    return x


def step_back(x: Tensor, noise: Tensor, retained: float, before: float, *, clip: bool) -> Tensor:
    """Return the data one step less noisy, (B, ...).

    Args:
        x: noisy data, (B, ...).
        noise: predicted noise in `x`, (B, ...).
        retained: fraction of the data's variance left in `x`.
        before: the same for the result; 1 for clean data.
        clip: whether the clean data are clipped to [-1, 1] and the noise is recomputed from the clipped data.
    """
    signal, rest = math.sqrt(retained), math.sqrt(1 - retained)
    clean = (x - rest * noise) / signal
    if clip:
        clean = clean.clamp(-1, 1)
        noise = (x - signal * clean) / rest
    return math.sqrt(before) * clean + math.sqrt(1 - before) * noise
