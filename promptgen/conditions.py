"""What a conditional flow is told besides its noise, such as a wanted pose: named coordinates, each with a range.

A condition is drawn uniformly from the box of the ranges. Zero in every coordinate is the *null condition*: it stands
where nobody asks for anything, and is what an identity is held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from promptgen.errors import DataError

if TYPE_CHECKING:  # params.yaml is read without torch
    import torch
    from torch import Tensor

EULER = ("pitch", "yaw", "roll")
"""Names of the Euler angles XYZ of a head: about X, about Y, about Z."""

Range = tuple[float, float]
"""Lowest and highest value of a coordinate."""


@dataclass(frozen=True)
class Condition:
    """A box of named coordinates; a box without any belongs to whatever takes no condition.

    Attributes:
        ranges: the range of each coordinate by name, in the order of the columns of conditions (B, C).

    Raises:
        DataError: a range is empty, reversed, or does not hold 0.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if not low < high:
                raise DataError(f"the range of {name} must rise, got {low:g} to {high:g}: give its lower end first")
            if not low <= 0 <= high:
                raise DataError(
                    f"the range of {name} must hold 0, the null condition, got {low:g} to {high:g}: count {name} from "
                    "where nothing is asked for"
                )

    def __len__(self) -> int:
        """Return the number C of coordinates."""
        return len(self.ranges)

    def __add__(self, other: Condition) -> Condition:
        """Return the box of these coordinates and then those of `other`.

        Raises:
            DataError: both have a coordinate of the same name.
        """
        if twice := self.ranges.keys() & other.ranges.keys():
            raise DataError(f"two conditions of one chain are called {' and '.join(sorted(twice))}: rename one")
        return Condition({**self.ranges, **other.ranges})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of conditions."""
        return tuple(self.ranges)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw conditions, (n, C) float64, uniformly from the box."""
        import torch

        low, high = self._ends()
        return low + (high - low) * torch.rand(n, len(self), generator=rng, dtype=torch.float64)

    def sweep(self, steps: int) -> Tensor:
        """Return `steps` conditions per coordinate, (C * steps, C) float64: it runs over its range, the others are 0.

        Args:
            steps: conditions per coordinate, from the lowest value to the highest.
        """
        import torch

        lines = torch.zeros(len(self), steps, len(self), dtype=torch.float64)
        for index, (low, high) in enumerate(self.ranges.values()):
            lines[index, :, index] = torch.linspace(low, high, steps, dtype=torch.float64)
        return lines.flatten(0, 1)

    def fix(self, context: Tensor, values: Mapping[str, float]) -> Tensor:
        """Return conditions, (B, C), in which the coordinates named in `values` have the values given there.

        Raises:
            DataError: there is no such coordinate.
        """
        context = context.clone()
        for name, value in values.items():
            if name not in self.ranges:
                raise DataError(f"there is no condition {name}, expected one of {', '.join(self.names) or 'none'}")
            context[:, self.names.index(name)] = value
        return context

    def _ends(self) -> tuple[Tensor, Tensor]:
        import torch

        ends = torch.tensor(list(self.ranges.values()), dtype=torch.float64).reshape(-1, 2)
        return ends[:, 0], ends[:, 1]


def split_context(context: Tensor | None, own: int) -> tuple[Tensor | None, Tensor | None]:
    """Return the parts of conditions, (B, C), that belong to what lies below a flow and, the last `own`, to the flow.

    A part without columns is None, as for what takes no condition.
    """
    if context is None:
        return None, None
    cut = max(context.shape[1] - own, 0)
    below, mine = context[:, :cut], context[:, cut:]
    return (below if below.shape[1] else None), (mine if mine.shape[1] else None)
