"""Classes of a class-conditional generator: one of them, or one drawn for each image by given shares.

A class that is drawn takes one more coordinate of the latent (`promptgen.drawn`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from promptgen.drawn import CLASS, Drawn, drawn_indices
from promptgen.errors import ConfigError
from promptgen.strict import summing_to_one

if TYPE_CHECKING:  # params.yaml is read without importing torch
    from torch import Tensor

UNIFORM: Literal["uniform"] = "uniform"
ClassNumber = Annotated[int, Field(ge=0)]


ClassShares = Annotated[
    dict[ClassNumber, Annotated[float, Field(gt=0)]], Field(min_length=1), AfterValidator(summing_to_one)
]
"""Share of images by number of the class; the shares sum to 1."""

ClassChoice = ClassNumber | ClassShares | Literal["uniform"]
"""One class by its number, from 0 on, or the shares by which classes are drawn, equal ones if `uniform`."""


def class_shares(choice: ClassChoice | None, count: int, source: object) -> Mapping[int, float]:
    """Return the share of each class that can be drawn.

    Args:
        choice: what was asked for.
        count: number of classes of the network; 0 for an unconditional one.
        source: what has these classes, for errors.

    Raises:
        ConfigError: a class is missing, is out of range, or is given to an unconditional network.
    """
    if not count:
        if choice is not None:
            raise ConfigError(f"{source} has no classes: leave classes out")
        return {}
    if choice is None:
        raise ConfigError(
            f"{source} has the classes 0 to {count - 1}, and none was named: write `classes: 0` for one of them, "
            "`classes: uniform`, or shares such as `classes: {0: 0.5, 1: 0.5}`"
        )
    if choice == UNIFORM:
        return dict.fromkeys(range(count), 1 / count)
    shares = {choice: 1.0} if isinstance(choice, int) else dict(choice)
    if odd := [number for number in shares if not 0 <= number < count]:
        raise ConfigError(f"{source} has the classes 0 to {count - 1}, got the class {odd[0]}: name one of them")
    try:
        summing_to_one(shares)
    except ValueError as error:
        raise ConfigError(f"{error}") from error
    return dict(sorted(shares.items()))


def drawn_classes(shares: Mapping[int, float]) -> Drawn | None:
    """Return the classes as what a generator draws, their labels being their numbers; None for one class, or none."""
    return Drawn(CLASS, {str(number): share for number, share in shares.items()}) if len(shares) > 1 else None


def class_numbers(u: Tensor, shares: Mapping[int, float]) -> Tensor:
    """Return the classes, (B,) int64, that coordinates `u`, (B,) standard normal, draw by the given shares.

    Example:
        >>> import torch
        >>> class_numbers(torch.tensor([-1.0, 0.0, 1.0]), {2: 0.25, 5: 0.5, 7: 0.25}).tolist()
        [2, 5, 7]
    """
    import torch

    return torch.tensor(list(shares), device=u.device)[drawn_indices(u, shares.values())]


def class_vectors(latent: Tensor, z_dim: int, shares: Mapping[int, float], count: int) -> Tensor:
    """Return the one-hot vectors, (B, count), of the classes of latents, (B, D), whose first `z_dim` numbers are z."""
    import torch

    if latent.shape[1] > z_dim:
        chosen = class_numbers(latent.detach()[:, z_dim], shares)
    else:
        chosen = torch.full((len(latent),), next(iter(shares)), device=latent.device)
    return torch.nn.functional.one_hot(chosen, count).to(latent)
