"""The steps of few-step samplers as plain arithmetic, so that they keep gradients and the precision of the latent.

In every sampler here, a step from x with the network's output o and noise n is

    clean = a x + b o,    next = c x + d clean + e n

with numbers that depend on the scheduler's config and on the number of steps alone. They come from the scheduler's own
noise levels; its `step` method is not called, because it counts its calls and rounds to single precision.

Sources: *Elucidating the Design Space of Diffusion-Based Generative Models* (Karras, Aittala, Aila, Laine, NeurIPS
2022, https://arxiv.org/abs/2206.00364) for Euler's steps; *Latent Consistency Models* (Luo, Tan, Huang, Li, Zhao, 2023,
https://arxiv.org/abs/2310.04378); *SANA-Sprint* (Chen et al., ICCV 2025, https://arxiv.org/abs/2503.09641); *Scaling
Rectified Flow Transformers* (Esser et al., ICML 2024, https://arxiv.org/abs/2403.03206).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from promptgen.errors import ConfigError, one_line

SCM_FIRST, SCM_MIDDLE = 1.5708, 1.3
"""Angles of the first step, and of the second of two, in the published pipeline."""


@dataclass(frozen=True)
class Step:
    """One step of a sampler.

    Attributes:
        time: the noise level as the network expects it, ().
        scale: factor of x in the network's input.
        of_x: coefficient of x in the clean latent.
        of_output: coefficient of the network's output in the clean latent.
        clip: largest absolute value of the clean latent; None leaves it as it is.
        keep: coefficient of x in the next latent.
        clean: coefficient of the clean latent in the next one.
        noise: standard deviation of the noise in the next one.
    """

    time: Tensor
    scale: float
    of_x: float
    of_output: float
    keep: float
    clean: float
    noise: float = 0.0
    clip: float | None = None

    def advance(self, x: Tensor, output: Tensor, noise: Tensor | None) -> Tensor:
        """Return the next latent, (B, C, h, w), of x, the network's output and noise of the same shape."""
        clean = self.of_x * x + self.of_output * output
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        following = self.keep * x + self.clean * clean
        return following if noise is None else following + self.noise * noise


@dataclass(frozen=True)
class Steps:
    """The steps of a sampler, from standard normal noise to the latent of an image.

    Attributes:
        first: factor of standard normal noise at the first step.
        steps: the steps.
        last: factor of the result, which gives the latent of the image.
    """

    first: float
    steps: tuple[Step, ...]
    last: float = 1.0


def steps_of(scheduler: Any, number: int, tokens: int) -> Steps:
    """Return the steps that a pipeline takes with a scheduler of diffusers.

    Args:
        scheduler: the scheduler; its time steps are set.
        number: number of steps.
        tokens: patches of the latent, which shift the noise levels of some schedulers.

    Raises:
        ConfigError: the scheduler's config asks for something that has no steps of this form.
    """
    name = type(scheduler).__name__
    for key in ("thresholding", "stochastic_sampling", "invert_sigmas"):
        if scheduler.config.get(key):
            raise ConfigError(f"the {name} of this pipeline has {key}, which is not supported: save it without")
    try:
        return _KINDS[name](scheduler, number, tokens)
    except (ValueError, IndexError) as error:
        reason = one_line(error)
        raise ConfigError(f"steps: {number} is not possible with the {name} of this pipeline: {reason}") from error


def _euler(scheduler: Any, number: int, tokens: int) -> Steps:
    """Steps of an Euler method along the noise level s, with x = clean + s noise."""
    scheduler.set_timesteps(number)
    sigmas, ancestral = scheduler.sigmas.double().tolist(), type(scheduler).__name__.startswith("EulerAncestral")
    steps = []
    for time, sigma, following in zip(scheduler.timesteps, sigmas, sigmas[1:], strict=False):
        up = math.sqrt(following**2 * (sigma**2 - following**2) / sigma**2) if ancestral else 0.0
        down = math.sqrt(following**2 - up**2)
        of_x, of_output = _prediction(scheduler, sigma)
        scale = 1 / math.sqrt(sigma**2 + 1)
        steps.append(Step(time, scale, of_x, of_output, keep=down / sigma, clean=1 - down / sigma, noise=up))
    return Steps(float(scheduler.init_noise_sigma), tuple(steps))


def _prediction(scheduler: Any, sigma: float) -> tuple[float, float]:
    """Return the coefficients of x = clean + sigma noise and of the output in the clean latent."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return 1.0, -sigma
    if kind == "v_prediction":
        return 1 / (sigma**2 + 1), -sigma / math.sqrt(sigma**2 + 1)
    raise _unknown_prediction(kind, "epsilon or v_prediction")


def _consistency(scheduler: Any, number: int, tokens: int) -> Steps:
    """Steps of a latent consistency model: to the clean latent, and back by fresh noise."""
    scheduler.set_timesteps(number)
    times, retained = scheduler.timesteps, scheduler.alphas_cumprod.double()
    config, steps = scheduler.config, []
    for index, time in enumerate(times):
        signal, rest = math.sqrt(retained[time]), math.sqrt(1 - retained[time])
        kinds = {"epsilon": (1 / signal, -rest / signal), "sample": (0.0, 1.0), "v_prediction": (signal, -rest)}
        if config.prediction_type not in kinds:
            raise _unknown_prediction(config.prediction_type, ", ".join(kinds))
        skip, out = (float(value) for value in scheduler.get_scalings_for_boundary_condition_discrete(time))
        last = index == len(times) - 1
        following, noise = (1.0, 0.0) if last else _parts(float(retained[times[index + 1]]))
        clip = config.clip_sample_range if config.clip_sample else None
        of_x, of_output = kinds[config.prediction_type]
        steps.append(Step(time, 1.0, of_x, of_output, following * skip, following * out, noise, clip))
    return Steps(float(scheduler.init_noise_sigma), tuple(steps))


def _parts(retained: float) -> tuple[float, float]:
    """Return the factors of signal and noise where this fraction of the variance is signal."""
    return math.sqrt(retained), math.sqrt(1 - retained)


def _trigonometric(scheduler: Any, number: int, tokens: int) -> Steps:
    """Steps of a continuous-time consistency model along an angle; the network itself was trained as a flow."""
    scheduler.set_timesteps(number, max_timesteps=SCM_FIRST, intermediate_timesteps=SCM_MIDDLE if number == 2 else None)
    if scheduler.config.prediction_type != "trigflow":
        raise _unknown_prediction(scheduler.config.prediction_type, "trigflow")
    spread, angles = float(scheduler.config.sigma_data), scheduler.timesteps.double().tolist()
    steps: list[Step] = []
    for angle, following in pairwise(angles):
        cos, sin = math.cos(angle), math.sin(angle)
        time = sin / (cos + sin)
        length = math.sqrt(time**2 + (1 - time) ** 2)
        of_x = cos - sin * (1 - 2 * time)
        of_output = -sin * spread * (1 - 2 * time + 2 * time**2) / length
        last = len(steps) == number - 1
        clean, noise = (1.0, 0.0) if last else (math.cos(following), math.sin(following) * spread)
        steps.append(Step(torch.tensor(time), length / spread, of_x, of_output, keep=0.0, clean=clean, noise=noise))
    return Steps(spread, tuple(steps), 1 / spread)


def _flow_matching(scheduler: Any, number: int, tokens: int) -> Steps:
    """Steps along straight lines from noise to image; the noise level s is also the share of noise in x."""
    config = scheduler.config
    levels = None if config.get("use_flow_sigmas") else [1 - index / number for index in range(number)]
    scheduler.set_timesteps(number, sigmas=levels, mu=_shift(config, tokens))
    sigmas = scheduler.sigmas.double().tolist()
    steps = [
        Step(time, 1.0, 1.0, -sigma, keep=following / sigma, clean=1 - following / sigma)
        for time, sigma, following in zip(scheduler.timesteps, sigmas, sigmas[1:], strict=False)
    ]
    return Steps(1.0, tuple(steps))


def _shift(config: Mapping[str, Any], tokens: int) -> float:
    """Return how far noise levels are shifted for an image of this many patches: linear in their number."""
    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return float(low + (high - low) * (tokens - fewest) / (most - fewest))


def _unknown_prediction(kind: str, options: str) -> ConfigError:
    return ConfigError(f"the scheduler of this pipeline has prediction_type {kind}, expected {options}")


_KINDS: Mapping[str, Callable[[Any, int, int], Steps]] = {
    "EulerDiscreteScheduler": _euler,
    "EulerAncestralDiscreteScheduler": _euler,
    "LCMScheduler": _consistency,
    "SCMScheduler": _trigonometric,
    "FlowMatchEulerDiscreteScheduler": _flow_matching,
}
"""How to find the steps, by the scheduler's class."""
