"""Deterministic DDIM: from noise to data in few steps of a long schedule, differentiable in bounded memory.

At the time steps ``t_1 < ... < t_T`` of the full schedule, with `a(t)` the share of the data's variance left, the noise
`e` that the network sees in `x` says which clean data it thinks of, and how noisy these were one step before:

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

from promptgen.generators.diffae_config import NoiseSchedule


class NoisePredictor(Protocol):
    """Tells the noise, (B, ...), in noisy data, (B, ...), at a time step of the full schedule, under conditions."""

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
    """Return the data, (B, ...), that noise of the same shape stands for.

    Args:
        predict: the network.
        noise: standard normal.
        schedule: how the network's data were made noisy.
        steps: number of steps of the sampler, see `NoiseSchedule.spaced`.
        conditions: what else the network is given.
        clip: whether the clean data of every step are clipped to [-1, 1].
        checkpointing: whether a backward pass computes each step again, so that no more than one step's worth of
            intermediate results is kept at a time.
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
        noise: what the network takes for noise in them, (B, ...).
        retained: share of the data's variance left in `x`.
        before: the same of the result; 1 for clean data.
        clip: whether the clean data are clipped to [-1, 1], and the noise is what then is not explained.
    """
    signal, rest = math.sqrt(retained), math.sqrt(1 - retained)
    clean = (x - rest * noise) / signal
    if clip:
        clean = clean.clamp(-1, 1)
        noise = (x - signal * clean) / rest
    return math.sqrt(before) * clean + math.sqrt(1 - before) * noise
