"""Conditions of a conditional flow, such as a target pose: named coordinates, each with a range.

A condition is drawn uniformly from the box of the ranges. Zero in every coordinate is the *null condition*: the default
if no condition is passed, and the reference for preserving an identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptgen.errors import DataError

if TYPE_CHECKING:  # params.yaml is read without importing torch
    import torch
    from torch import Tensor

EULER = ("pitch", "yaw", "roll")
"""Names of the Euler angles XYZ of a head: about X, about Y, about Z."""

Range = tuple[float, float]
"""Lowest and highest value of a coordinate."""


@dataclass(frozen=True)
class Condition:
    """A box of named coordinates; without any coordinates, a flow or generator is unconditional.

    Attributes:
        ranges: the range of each coordinate by name, in the order of the columns of conditions (B, C).

    Raises:
        DataError: a range is empty, reversed, or does not contain 0.

    Example:
        >>> from promptgen.seeding import stream
        >>> pose = Condition({"pitch": (-0.2, 0.2), "yaw": (-0.5, 0.5)})
        >>> pose.sample(3, stream(0, "example")).shape
        torch.Size([3, 2])
        >>> pose.sweep(3)[:3].tolist()  # pitch varies, yaw stays at its null value
        [[-0.2, 0.0], [0.0, 0.0], [0.2, 0.0]]
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if not low < high:
                raise DataError(f"the range of {name} must rise, got {low:g} to {high:g}: give its lower end first")
            if not low <= 0 <= high:
                raise DataError(
                    f"the range of {name} must contain 0, the null condition, got {low:g} to {high:g}: measure {name} "
                    "from its neutral value"
                )

    def __len__(self) -> int:
        """Return the number C of coordinates."""
        return len(self.ranges)

    def __add__(self, other: Condition) -> Condition:
        """Return the box with these coordinates followed by those of `other`.

        Raises:
            DataError: both have a coordinate of the same name.
        """
        if duplicates := self.ranges.keys() & other.ranges.keys():
            raise DataError(f"a chain has two conditions named {' and '.join(sorted(duplicates))}: rename one")
        return Condition({**self.ranges, **other.ranges})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates, in the order of the columns."""
        return tuple(self.ranges)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw conditions, (n, C) float64, uniformly from the box."""
        import torch

        low, high = torch.tensor(list(self.ranges.values()), dtype=torch.float64).reshape(-1, 2).unbind(dim=1)
        return low + (high - low) * torch.rand(n, len(self), generator=rng, dtype=torch.float64)

    def sweep(self, steps: int) -> Tensor:
        """Return `steps` conditions per coordinate, (C * steps, C) float64: one sweeps its range, the others are 0.

        Args:
            steps: number of conditions per coordinate, from its lowest value to its highest.
        """
        import torch

        lines = torch.zeros(len(self), steps, len(self), dtype=torch.float64)
        for index, (low, high) in enumerate(self.ranges.values()):
            lines[index, :, index] = torch.linspace(low, high, steps, dtype=torch.float64)
        return lines.flatten(0, 1)

    def fix(self, context: Tensor, values: Mapping[str, float]) -> Tensor:
        """Return conditions, (B, C), with the coordinates named in `values` set to these values.

        Raises:
            DataError: there is no coordinate of that name.
        """
        context = context.clone()
        for name, value in values.items():
            if name not in self.ranges:
                raise DataError(f"there is no condition {name}, expected one of {', '.join(self.names) or 'none'}")
            context[:, self.names.index(name)] = value
        return context


def split_context(context: Tensor | None, columns: int) -> tuple[Tensor | None, Tensor | None]:
    """Split conditions, (B, C), into the generator's columns and, the last `columns` ones, those of the flow on it.

    A part without columns is None, as an unconditional generator or flow expects.
    """
    if context is None:
        return None, None
    cut = max(context.shape[1] - columns, 0)
    below, above = context[:, :cut], context[:, cut:]
    return (below if below.shape[1] else None), (above if above.shape[1] else None)
