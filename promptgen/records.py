"""The record of a run: what was measured of every pass. Everything that shows numbers is derived from it.

`Measurement` is the result of the step `evaluate`, `Verdict` that of `estimate_bias` and `Confirmation` that of
`confirm`. `PassRecord` is all that is known of a pass, and `Metrics` is the content of ``reports/metrics.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from promptgen.figures import Difference as Difference
from promptgen.figures import Distance as Distance
from promptgen.figures import Figure as Figure
from promptgen.figures import Fit as Fit
from promptgen.figures import Interval as Interval
from promptgen.figures import Record as Record
from promptgen.figures import ReferenceImages as ReferenceImages
from promptgen.figures import Reuse as Reuse

Source = Literal["classifier", "judge", "truth"]
SOURCES: tuple[Source, ...] = get_args(Source)
"""The readers, in the order of tables and figures."""

TRUSTED: tuple[Source, ...] = ("judge", "classifier", "truth")
"""The readers, the most trusted first: where a single number is shown, it is that of the first one that has it."""


class Bias(Record):
    """The shares of an attribute's classes, and their distances to the target; see `promptgen.metrics.bias`."""

    shares: dict[str, Interval]
    kl: Interval
    total_variation: Interval
    discrepancy: Interval

    @property
    def distances(self) -> dict[str, Interval]:
        """Every distance to the target, by name."""
        return {"kl": self.kl, "total_variation": self.total_variation, "discrepancy": self.discrepancy}


class ReaderBias(Bias):
    """The labels of an attribute by one reader, each sample counted as its most probable class.

    Attributes:
        counts: samples of each class.
        simultaneous: shares with intervals that hold together at the confidence level, which the stopping rule uses;
            None for an attribute that is only watched.
        from_target: differences of the shares from a target that was itself counted, with intervals that allow for
            chance in both samples and hold together, which the stopping rule then uses; None for any other target.
        soft: the same figures from mean probabilities; None if the reader gives none.
        corrected: shares without the reader's known errors; None if they are not known.
        uncorrectable: classes whose counts no true shares could have given, so that the reader's confusion table does
            not hold for these samples.
        within: shares within each label of what the generator draws, such as its prompt, by that label and then by the
            label of the other factor; None if the attribute is no such product. An empty label is left out.
    """

    counts: dict[str, int]
    simultaneous: dict[str, Interval] | None = None
    from_target: dict[str, Interval] | None = None
    soft: Bias | None = None
    corrected: dict[str, Interval] | None = None
    uncorrectable: list[str] = Field(default_factory=list)
    within: dict[str, dict[str, Interval]] | None = None


class AttributeBias(Record):
    """An attribute, or a product of several, as every reader counts it that knows its classes.

    Attributes:
        target: share of each class that the distances are measured to.
        chance: what each distance would be by chance alone, by name.
        by: what each reader says.
    """

    target: dict[str, float]
    chance: dict[str, float]
    by: dict[Source, ReaderBias] = Field(min_length=1)

    @property
    def source(self) -> Source:
        """The most trusted of those who counted; of the attribute to de-bias it is always the judge."""
        return next(source for source in TRUSTED if source in self.by)

    @property
    def trusted(self) -> ReaderBias:
        """What the most trusted reader says."""
        return self.by[self.source]

    @property
    def contains_target(self) -> bool:
        """Whether the count is on target, by the most trusted reader: the rule that ends the loop."""
        if (differences := self.trusted.from_target) is not None:
            return all(difference.contains(0) for difference in differences.values())
        return contains_target(self.trusted.simultaneous or self.trusted.shares, self.target)

    def share(self, source: Source, label: str) -> Interval | None:
        """Return the share of `label` as counted by `source`; None when that one did not count."""
        return self.by[source].shares[label] if source in self.by else None

    @model_validator(mode="after")
    def _classes_agree(self) -> Self:
        for source, reader in self.by.items():
            for name, labels in (("shares", reader.shares), ("counts", reader.counts)):
                if set(labels) != set(self.target):
                    raise ValueError(
                        f"there are {name} of {sorted(labels)} by {source}, the target names {sorted(self.target)}"
                    )
        return self


def contains_target(shares: Mapping[str, Interval], target: Mapping[str, float]) -> bool:
    """Tell whether every share's interval contains its target."""
    return all(shares[label].contains(goal) for label, goal in target.items())


class Count(AttributeBias):
    """Fresh samples of a pass, and how the attribute to de-bias is distributed among them."""

    number: int = Field(alias="pass", ge=0)
    n: int = Field(gt=0)

    @model_validator(mode="after")
    def _judge_counted(self) -> Self:
        if "judge" not in self.by:
            raise ValueError(f"pass {self.number} was counted by {', '.join(self.by)}, expected a count by the judge")
        return self


class Quality(Record):
    """How the samples look against the generator's own; see `promptgen.metrics.quality`.

    The generator itself is compared with itself, one half of its samples with the other: what chance alone shows.

    A new measure is one more field of a type derived from `Figure`: metrics.json, summary.json, MLflow, the CSV table
    and the page take every one of them.
    """

    reference: Literal["the generator", "its other half"]
    features: str
    n: int = Field(gt=0)
    n_reference: int = Field(gt=0)
    few_samples: bool
    precision: Interval
    recall: Interval
    frechet: Distance
    kernel: Interval
    vendi: Interval

    @property
    def figures(self) -> dict[str, Figure]:
        """Every measure by name, in the order of the fields."""
        return {name: value for name, value in self if isinstance(value, Figure)}

    @property
    def numbers(self) -> dict[str, float]:
        """Every number of the measures by name: ``recall``, ``recall_low``, ``recall_high``, ``frechet_chance``."""
        return {
            name if part == "value" else f"{name}_{part}": number
            for name, figure in self.figures.items()
            for part, number in figure.parts.items()
        }


class Measurement(Count):
    """One pass of the loop, as measured on its own fresh samples.

    Attributes:
        kind: what the pass is about.
        watched: attributes that are measured though no flow was trained to move them.
        quality: None if no network looks at the samples.
        control: what the control asks for: the share of a class as ``makeup.without.judge``, and other measures such as
            ``pose.error``.
    """

    kind: Literal["generator", "control", "debias"]
    watched: dict[str, AttributeBias]
    quality: Quality | None
    control: dict[str, Interval]


def requested_shares(control: Mapping[str, Interval]) -> dict[tuple[str, str], dict[Source, Interval]]:
    """Return the shares among the figures of the control, by attribute and label, and by reader.

    Args:
        control: `Measurement.control` or `Change.control`. A label in a name such as ``makeup.without.judge`` may have
            dots of its own.
    """
    shares: dict[tuple[str, str], dict[Source, Interval]] = {}
    for name, interval in control.items():
        attribute, _, rest = name.partition(".")
        label, _, last = rest.rpartition(".")
        for source in SOURCES:
            if label and source == last:
                shares.setdefault((attribute, label), {})[source] = interval
    return shares


class AttributeChange(Record):
    """How an attribute has moved from an earlier pass to a later one, by one reader.

    Attributes:
        shares: difference of each share.
        distances: difference of each distance to the target, by name.
        p_value: of no share having changed.
    """

    shares: dict[str, Difference]
    distances: dict[str, Difference]
    p_value: float


class Change(Record):
    """What is different from an earlier pass.

    Attributes:
        since: number of the earlier pass.
        by: the attribute to de-bias, by every reader that counted both passes.
        watched: the watched attributes, likewise.
        control: differences of the shares that the control asks for, under their names in `Measurement.control`.
    """

    since: int = Field(ge=0)
    by: dict[Source, AttributeChange]
    watched: dict[str, dict[Source, AttributeChange]]
    control: dict[str, Interval]


class Verdict(Record):
    """The changes of a pass since earlier ones, and whether the loop continues.

    Attributes:
        changes: what is different from the first pass, the control's pass and the pass before.
        contains_target: whether the judge's count is on target.
        stop: why the loop stops after this pass; None if it continues.
    """

    changes: list[Change]
    contains_target: bool
    stop: str | None


class PassRecord(Measurement):
    """All that is known of a pass.

    Attributes:
        changes: as of `Verdict`.
        fit: how well the flow fits; None for the generator itself.
        reuse: what its training on evaluations took; None for another method, and for the generator itself.
        seconds: time of each step.
        generator_evaluations: images made, ``forward``, and those that a gradient went through, ``backward``.
    """

    changes: list[Change]
    fit: Fit | None
    reuse: Reuse | None = None
    seconds: dict[str, float]
    generator_evaluations: dict[str, int]

    def change(self, since: int) -> Change | None:
        """Return what is different from pass `since`; None if the two are not compared."""
        return next((change for change in self.changes if change.since == since), None)


class Confirmation(Count):
    """The last pass counted once more, on samples drawn after it was decided that the loop ends there.

    A pass at which the loop stops because its interval contains the target was chosen by that very count, which is
    therefore a little too favourable; this one is not.
    """


class Metrics(Record):
    """The content of ``reports/metrics.json``."""

    experiment: str
    attribute: str
    target: dict[str, float]
    stopped: str
    passes: list[PassRecord] = Field(min_length=1)
    confirmation: Confirmation | None = None
    reference: ReferenceImages | None = None

    @property
    def counts(self) -> list[Count]:
        """Every count of the attribute to de-bias, that after the loop at the end."""
        return [*self.passes, *([self.confirmation] if self.confirmation else [])]

    @property
    def sources(self) -> list[Source]:
        """Who counted in at least one pass."""
        return [source for source in SOURCES if any(source in record.by for record in self.passes)]

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        numbers = [record.number for record in self.passes]
        if numbers != list(range(len(numbers))):
            raise ValueError(f"passes must be in order and each once, from 0 on, got {numbers}")
        for count in self.counts:
            if count.target != self.target:
                raise ValueError(f"pass {count.number} has the target {count.target}, expected {self.target}")
        again = self.confirmation
        if again and again.number != numbers[-1]:
            raise ValueError(f"pass {again.number} was counted again, expected the last one, {numbers[-1]}")
        return self
