"""Training of the embedded world's models: one loop, seeded and resumable, and a loss for each model."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from promptgen.files import atomic_path
from promptgen.seeding import stream
from promptgen.world.config import Recipe

logger = logging.getLogger(__name__)

SAVE_EVERY = 500
REPORT_EVERY = 100
AVERAGE = 0.998
"""Decay of the exponential moving average of the weights, which is what is kept."""


def optimise(
    model: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    recipe: Recipe,
    *,
    name: str,
    seed: int,
    state: Path,
    rates: Callable[[str], float] = lambda parameter: 1.0,
) -> nn.Module:
    """Minimise `loss` over the weights of `model` that want gradients; return the average of the weights as a model.

    The random numbers of a step come from its own stream, so a run that was killed ends as if it had not been.

    Args:
        model: what is trained, in place.
        loss: takes the step's random stream, returns a scalar that depends on `model`.
        recipe: how long and how fast.
        name: names the streams.
        seed: seed of the streams.
        state: file of the state saved on the way; removed by nobody, so a finished training is not done again.
        rates: factor of the learning rate of a parameter, by its name.
    """
    average = copy.deepcopy(model)
    named = [(key, value) for key, value in model.named_parameters() if value.requires_grad]
    groups = [{"params": [value], "lr": recipe.learning_rate * rates(key)} for key, value in named]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe.steps))
    parts: dict[str, Any] = {"model": model, "average": average, "optimiser": optimiser, "schedule": schedule}
    start = _restore(parts, state)
    begun, running = time.monotonic(), 0.0
    for step in range(start, recipe.steps):
        value = loss(stream(seed, name, step))
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([value for _, value in named], 10.0)
        optimiser.step()
        schedule.step()
        _move_average(average, model, min(AVERAGE, (step + 1) / (step + 10)))
        running += float(value.detach())
        if (step + 1) % REPORT_EVERY == 0:
            speed = (step + 1 - start) / (time.monotonic() - begun)
            loss_now, line = running / REPORT_EVERY, "%s: step %d of %d, loss %.5f, %.2f steps/s"
            logger.info(line, name, step + 1, recipe.steps, loss_now, speed)
            running = 0.0
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == recipe.steps:
            with atomic_path(state) as temporary:
                torch.save({key: part.state_dict() for key, part in parts.items()} | {"step": step + 1}, temporary)
    return average


def _rate(step: int, steps: int) -> float:
    """Return the factor of the learning rate: up within 100 steps, then down as a half cosine."""
    return min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


@torch.no_grad()
def _move_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - decay)


def _restore(parts: Mapping[str, Any], state: Path) -> int:
    if not state.exists():
        return 0
    saved = torch.load(state, weights_only=True)
    for key, part in parts.items():
        part.load_state_dict(saved[key])
    return int(saved["step"])


# What the models learn ------------------------------------------------------------------------------------------------


def picture_loss(picture: Tensor, target: Tensor) -> Tensor:
    """Return how far pictures, (B, 3, 64, 64), are from targets: squared errors of colours and edges at three scales.

    A plain absolute error would give heads without faces: the median of a small feature that moves with the pose is
    skin. Squared errors of edges, and a weight on the middle of the picture, make eyes and mouth worth learning.
    """
    error = picture - target
    weight = _centre_weight(error)
    total = error.new_zeros(())
    for scale in range(3):
        if scale:
            error, weight = functional.avg_pool2d(error, 2), functional.avg_pool2d(weight, 2)
        total = total + (weight * error.square()).mean()
        total = total + 2 * (weight[..., 1:] * error.diff(dim=3).square()).mean()
        total = total + 2 * (weight[..., 1:, :] * error.diff(dim=2).square()).mean()
    return total


def _centre_weight(like: Tensor) -> Tensor:
    """Return weights, (1, 1, H, W): 3 where faces are, falling to 1."""
    line = torch.linspace(-1, 1, like.shape[-1], device=like.device)
    radius = (line[None, :] / 0.55).square() + (line[:, None] / 0.75).square()
    return (1 + 2 * torch.sigmoid(6 * (1 - radius)))[None, None]


def roughen(image: Tensor, rng: torch.Generator) -> Tensor:
    """Return images, (B, 3, H, W), as a generator might spoil them: shifted, softened, noisy, of another brightness.

    A network trained on clean renders alone would read a generator's small faults as features.
    """
    batch, _, height, width = image.shape
    padded = functional.pad(image, (2, 2, 2, 2), mode="replicate")
    dx, dy = torch.randint(0, 5, (2,), generator=rng).tolist()
    image = padded[..., dy : dy + height, dx : dx + width]
    soft = functional.avg_pool2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mix, gain, sigma = torch.rand(3, batch, 1, 1, 1, generator=rng).unbind()
    image = image + mix * (soft - image)
    noise = torch.randn(image.shape, generator=rng)
    return image * (0.9 + 0.2 * gain) + 0.04 * sigma * noise


def pick(images: Tensor, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the indices, (B,), and the pictures, float in [0, 1], of a random batch of uint8 pictures."""
    index = torch.randint(0, len(images), (batch,), generator=rng)
    return index, images[index].float() / 255
