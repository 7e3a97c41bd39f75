"""Classes of a class-conditional generator: one of them, or one drawn for each image by given shares.

A class that is drawn takes one more coordinate `u` of the latent, standard normal and independent of all others. The
image has the class `k` with ``F(k - 1) < Phi(u) <= F(k)``, where `F` sums the shares up to a class and `Phi` is the
normal distribution function. The prior is still Gaussian, so densities stay exact. An image is not continuous in `u`,
so flows leave `u` as it is and take it as a condition (`promptgen.flows.flow`): the shares are those given, whatever
the flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

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


def class_coordinates(choice: ClassChoice | None) -> int:
    """Return how many coordinates of the latent draw the class: one if more than one class can be drawn."""
    return 0 if choice is None or isinstance(choice, int) or (choice != UNIFORM and len(choice) == 1) else 1


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


def class_numbers(u: Tensor, shares: Mapping[int, float]) -> Tensor:
    """Return the classes, (B,) int64, that coordinates `u`, (B,) standard normal, draw by the given shares.

    Example:
        >>> import torch
        >>> class_numbers(torch.tensor([-1.0, 0.0, 1.0]), {2: 0.25, 5: 0.5, 7: 0.25}).tolist()
        [2, 5, 7]
    """
    import torch

    numbers = torch.tensor(list(shares), device=u.device)
    bounds = torch.tensor(list(shares.values()), dtype=torch.float64, device=u.device).cumsum(0)
    return numbers[torch.bucketize(torch.special.ndtr(u.double()), bounds[:-1])]


def class_vectors(latent: Tensor, z_dim: int, shares: Mapping[int, float], count: int) -> Tensor:
    """Return the one-hot vectors, (B, count), of the classes of latents, (B, D), whose first `z_dim` numbers are z."""
    import torch

    if latent.shape[1] > z_dim:
        chosen = class_numbers(latent.detach()[:, z_dim], shares)
    else:
        chosen = torch.full((len(latent),), next(iter(shares)), device=latent.device)
    return torch.nn.functional.one_hot(chosen, count).to(latent)
