"""The schema of ``reports/metrics.json``: what was counted of every pass, and by whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from promptgen.errors import DataError

Source = Literal["classifier", "judge", "truth"]
SOURCES: tuple[Source, ...] = ("classifier", "judge", "truth")
"""Who counts, in the order of tables and figures."""

TRUSTED: tuple[Source, ...] = ("judge", "classifier", "truth")
"""Who counts, the one whose word is taken first."""


class Record(BaseModel):
    """Base of the records: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Interval(Record):
    """A measured number with the ends of its confidence interval."""

    value: float
    low: float
    high: float

    def contains(self, number: float) -> bool:
        """Tell whether `number` lies within the interval."""
        return self.low <= number <= self.high

    def overlaps(self, other: Interval) -> bool:
        """Tell whether the two intervals share a point."""
        return self.low <= other.high and other.low <= self.high


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


class Bias(Record):
    """All bias figures of an attribute by one who counts; see `promptgen.metrics.bias`."""

    shares: dict[str, Interval]
    kl: Interval
    total_variation: Interval
    discrepancy: Interval


class Watched(Record):
    """An attribute, or a product of several, that is measured though no flow was trained to move it.

    `chance` is what each distance would show by chance alone, by its name.
    """

    target: dict[str, float]
    by: dict[Source, Bias]
    chance: dict[str, float]


class Quality(Record):
    """How the samples look against the generator's own; see `promptgen.metrics.quality`.

    The generator itself is compared with itself, one half of its samples with the other: what chance alone shows.
    """

    reference: Literal["the generator", "its other half"]
    features: str
    n: int = Field(gt=0)
    n_reference: int = Field(gt=0)
    frechet: float
    frechet_chance: float
    few_samples: bool
    kernel: Interval
    precision: Interval
    recall: Interval


class Count(Record):
    """Fresh samples of a pass, counted by everyone who can read the attribute to de-bias.

    `chance` is what each distance of so many samples would be by chance alone, by its name; `uncorrectable` are labels
    whose count no true shares could have given, so that the confusion table does not hold for these samples.
    """

    number: int = Field(alias="pass", ge=0)
    n: int = Field(gt=0)
    shares: dict[Source, dict[str, Interval] | None]
    kl: dict[Source, Interval | None]
    distances: dict[Source, dict[str, Interval]] = Field(default_factory=dict)
    chance: dict[str, float] = Field(default_factory=dict)
    corrected: dict[Source, dict[str, Interval]] = Field(default_factory=dict)
    uncorrectable: dict[Source, list[str]] = Field(default_factory=dict)

    @property
    def counter(self) -> Source:
        """Who counts for the verdict: the judge, or the classifier where there is no judge."""
        return "judge" if self.shares.get("judge") else "classifier"

    @property
    def counted(self) -> dict[str, Interval]:
        """The share of each class, by `counter`."""
        return self.shares.get(self.counter) or {}

    @property
    def distance(self) -> Interval | None:
        """KL of these shares to the target, nats, by `counter`."""
        return self.kl.get(self.counter)

    def share(self, source: Source, label: str) -> Interval | None:
        """Return the share of `label` as counted by `source`; None when that source did not look."""
        return (self.shares.get(source) or {}).get(label)

    def contains(self, target: Mapping[str, float]) -> bool:
        """Tell whether every share's interval, by `counter`, contains its target: the rule that ends the loop."""
        return all(self.counted[label].contains(goal) for label, goal in target.items())


class PassRecord(Count):
    """One pass of the loop, as measured on its own fresh samples.

    `soft` are mean probabilities instead of counted labels.
    """

    kind: Literal["generator", "control", "debias"]
    soft: dict[Source, Bias] = Field(default_factory=dict)
    watched: dict[str, Watched] = Field(default_factory=dict)
    quality: Quality | None = None
    control: dict[str, Interval]
    fit: Fit | None
    seconds: dict[str, float]
    generator_evaluations: dict[str, int]


class Confirmation(Count):
    """The last pass counted once more, on samples drawn after it was decided that the loop ends there.

    A pass at which the loop stops because its interval contains the target was chosen by that very count, which is
    therefore a little too favourable; this one is not.
    """

    contains_target: bool


class Metrics(Record):
    """The content of ``reports/metrics.json``."""

    experiment: str
    attribute: str
    target: dict[str, float]
    stopped: str
    passes: list[PassRecord] = Field(min_length=1)
    confirmation: Confirmation | None = None

    @property
    def counts(self) -> list[Count]:
        """Every count of the attribute to de-bias, that after the loop at the end."""
        return [*self.passes, *([self.confirmation] if self.confirmation else [])]

    @property
    def sources(self) -> list[Source]:
        """Who counted in at least one pass."""
        return [source for source in SOURCES if any(record.shares.get(source) for record in self.passes)]

    @property
    def corrected(self) -> list[Source]:
        """Whose errors were measured, so that shares without them are known in at least one pass."""
        return [source for source in SOURCES if any(record.corrected.get(source) for record in self.counts)]

    @property
    def soft(self) -> list[Source]:
        """Who gave probabilities in at least one pass."""
        return [source for source in SOURCES if any(record.soft.get(source) for record in self.passes)]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse passes out of order, and passes without figures for exactly the target's classes."""
        numbers = [record.number for record in self.passes]
        if numbers != sorted(set(numbers)):
            raise ValueError(f"passes must be in order and each once, got {numbers}")
        for record in self.counts:
            if not record.counted or not record.distance:
                raise ValueError(f"pass {record.number} has no shares or no KL, by judge or classifier")
            for source, shares in record.shares.items():
                if shares is not None and set(shares) != set(self.target):
                    names = f"{sorted(shares)} by {source}, the target names {sorted(self.target)}"
                    raise ValueError(f"pass {record.number} has shares of {names}")
        self._check_confirmation()
        return self

    def _check_confirmation(self) -> None:
        again = self.confirmation
        if again is None:
            return
        if again.number != self.passes[-1].number:
            raise ValueError(f"pass {again.number} was counted again, expected the last one, {self.passes[-1].number}")
        if again.contains_target != again.contains(self.target):
            raise ValueError("the count after the loop contradicts itself on whether it contains the target")

    @classmethod
    def parse(cls, content: Any, origin: str) -> Metrics:
        """Return checked metrics from what a JSON file holds.

        Args:
            content: decoded JSON.
            origin: what to call it in an error.

        Raises:
            DataError: a key is missing, unknown or ill-typed, or the parts contradict each other.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "content"
            raise DataError(f"{origin}: {place}: {first['msg']}; run the loop again to write it anew") from error

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON content; `parse` reads it back."""
        return self.model_dump(mode="json", by_alias=True)
