"""The parts that the record of a run is made of: numbers with their intervals, and what is known of a training."""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptgen.errors import DataError

TRUSTED_FRACTION = 0.5
"""A surrogate is trusted if the true effective sample size is at least this fraction of what it expects."""


class Estimate(Protocol):
    """A number with the ends of its confidence interval, such as `promptgen.metrics.estimate.Estimate`."""

    @property
    def value(self) -> float:
        """The number."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""

    @property
    def high(self) -> float:
        """Upper end of the interval."""


class Record(BaseModel):
    """Base of the records: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, content: Any, origin: str) -> Self:
        """Return the record that a JSON file holds.

        Raises:
            DataError: a key is missing, unknown or ill-typed, or the parts contradict each other.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "content"
            raise DataError(f"{origin}: {place}: {first['msg']}; run the loop again") from error

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON content; `parse` reads it back."""
        return self.model_dump(mode="json", by_alias=True)


class Figure(Record):
    """A measured number."""

    value: float

    @property
    def parts(self) -> dict[str, float]:
        """The number and what stands beside it, by name: ``value`` and, for an interval, ``low`` and ``high``."""
        return {name: float(part) for name, part in self if isinstance(part, int | float)}


class Interval(Figure):
    """A measured number with the ends of its confidence interval.

    Example:
        >>> Interval(value=0.5, low=0.4, high=0.6).contains(0.45)
        True
    """

    low: float
    high: float

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Return an estimate as a part of a record.

        Raises:
            DataError: it is not finite.
        """
        numbers = {name: float(getattr(estimate, name)) for name in cls.model_fields}
        if not all(map(math.isfinite, numbers.values())):
            raise DataError(
                f"expected a finite number with a finite interval, got {numbers}; check what the models return"
            )
        return cls(**numbers)

    def contains(self, number: float) -> bool:
        """Tell whether `number` lies within the interval."""
        return self.low <= number <= self.high

    def overlaps(self, other: Interval) -> bool:
        """Tell whether the two intervals share a point."""
        return self.low <= other.high and other.low <= self.high


class Difference(Interval):
    """A difference with its interval, and the two-sided p-value of there being none."""

    p_value: float


class Distance(Figure):
    """A distance without an interval, and what chance alone would show on average."""

    chance: float


class ReferenceImages(Record):
    """Images whose shares are the target.

    Attributes:
        folder: name of their folder.
        n: images that were counted.
        left_out: files that could not be read as images, or not be labelled.
        shares: share of each label, as the classifier reads it.
    """

    folder: str
    n: int = Field(gt=0)
    left_out: int
    shares: dict[str, Interval]


class Fit(Record):
    """How well a flow follows the distribution it was trained for; see `promptgen.flows.fit`."""

    ess_fraction: Interval
    log_z: Interval
    kl_gap: Interval
    tail_index: float | None
    trust: Literal["good", "usable", "not to be trusted"]
    n: int = Field(gt=0)

    @property
    def log_z_bound(self) -> float:
        """Lower bound of log Z, the mean log weight, nats."""
        return self.log_z.value - self.kl_gap.value


class Reuse(Record):
    """How a flow was trained on evaluations that are kept; see `promptgen.evaluations.training`.

    Attributes:
        units: cost of the images made, in forward passes; one with a gradient counts as three.
        budget: largest cost that was allowed.
        used: evaluations that the training rests on, those of earlier passes included.
        surrogate_error: error of the surrogate on evaluations that it was not fitted to.
        expected_ess: effective sample size, as a fraction, that the surrogate expects.
        polished: images whose true gradients the flow was trained on after the surrogate had proved wrong.
        rank: directions of the latent that the flow moves; None for all of them.
        given_away: bound on the KL, nats, between the target and the closest distribution that such a flow can reach;
            None if the flow moves all directions, or if no gradient tells.
    """

    units: int
    budget: int
    used: int
    surrogate_error: float
    expected_ess: float
    polished: int = 0
    rank: int | None = None
    given_away: Interval | None = None

    def trusts(self, fit: Fit) -> bool:
        """Tell whether the surrogate was right about the flow: the true effective sample size is not far below."""
        return fit.ess_fraction.high >= TRUSTED_FRACTION * self.expected_ess
