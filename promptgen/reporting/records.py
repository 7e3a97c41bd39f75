"""What the report is made of: the schema of ``reports/metrics.json``, and what is shown beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from promptgen.errors import DataError
from promptgen.metrics.estimate import Estimate
from promptgen.metrics.shares import share_difference
from promptgen.reporting.formats import class_name, listing
from promptgen.reporting.history import History
from promptgen.reporting.pictures import Pixels

Source = Literal["classifier", "judge", "truth"]
ASKED = {"pose": "a given pose", "identity": "the same face whatever the condition"}
SOURCES: tuple[Source, ...] = ("classifier", "judge", "truth")


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

    def minus(self, other: Interval) -> Estimate:
        """Return the difference of two shares of independent samples, with its own interval."""
        return share_difference(Estimate(**self.model_dump()), Estimate(**other.model_dump()))


class Fit(Record):
    """How well a flow follows the distribution it was trained for; see `promptgen.fit`."""

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


class PassRecord(Record):
    """One pass of the loop, as measured on its own fresh samples."""

    number: int = Field(alias="pass", ge=0)
    kind: Literal["generator", "control", "debias"]
    n: int = Field(gt=0)
    shares: dict[Source, dict[str, Interval] | None]
    kl: dict[Source, Interval | None]
    corrected: dict[Source, dict[str, Interval]] = Field(default_factory=dict)
    uncorrectable: dict[Source, list[str]] = Field(default_factory=dict)
    distances: dict[Source, dict[str, Interval]] = Field(default_factory=dict)
    chance: dict[str, float] = Field(default_factory=dict)
    soft: dict[Source, Bias] = Field(default_factory=dict)
    watched: dict[str, Watched] = Field(default_factory=dict)
    quality: Quality | None = None
    control: dict[str, Interval]
    fit: Fit | None
    seconds: dict[str, float]
    generator_evaluations: dict[str, int]

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


class Confirmation(Record):
    """The last pass counted once more, on samples drawn after it was decided that the loop ends there.

    A pass at which the loop stops because its interval contains the target was chosen by that very count, which is
    therefore a little too favourable; this one is not.
    """

    number: int = Field(alias="pass", ge=0)
    n: int = Field(gt=0)
    shares: dict[Source, dict[str, Interval]]
    kl: dict[Source, Interval]
    distances: dict[Source, dict[str, Interval]]
    corrected: dict[Source, dict[str, Interval]]
    uncorrectable: dict[Source, list[str]] = Field(default_factory=dict)
    chance: dict[str, float]
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
    def sources(self) -> list[Source]:
        """Who counted in at least one pass."""
        return [source for source in SOURCES if any(record.shares.get(source) for record in self.passes)]

    @property
    def corrected(self) -> list[Source]:
        """Whose errors were measured, so that shares without them are known in at least one pass."""
        return [source for source in SOURCES if any(record.corrected.get(source) for record in self.passes)]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse passes out of order, and passes without figures for exactly the target's classes."""
        numbers = [record.number for record in self.passes]
        if numbers != sorted(set(numbers)):
            raise ValueError(f"passes must be in order and each once, got {numbers}")
        for record in self.passes:
            if not record.counted or not record.distance:
                raise ValueError(f"pass {record.number} has no shares or no KL, by judge or classifier")
            for source, shares in record.shares.items():
                if shares is not None and set(shares) != set(self.target):
                    names = f"{sorted(shares)} by {source}, the target names {sorted(self.target)}"
                    raise ValueError(f"pass {record.number} has shares of {names}")
        return self

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


@dataclass(frozen=True)
class PassMaterial:
    """What one pass leaves besides its record.

    Args:
        tiles: images of the grid's latents, (n, H, W, 3) uint8: the same latents, in the same order, in every pass.
        history: a row of numbers per training step; empty for the generator itself.
        moments: the solved moment constraint of a de-biasing pass, as `promptgen.moments.MomentFit.as_dict` gives it.
        beta: the multipliers at the end of training, nats by feature name; empty where they were not moved.
        sweep: a latent per row under a condition per column, (rows, columns, H, W, 3) uint8; None without a condition.
    """

    tiles: Pixels
    history: History = ()
    moments: Mapping[str, Any] | None = None
    beta: Mapping[str, float] = field(default_factory=dict)
    sweep: Pixels | None = None


@dataclass(frozen=True)
class Settings:
    """What of the parameters the report talks about.

    Args:
        asked: what the control asks for, in words; empty without a control.
        classifier: model that took part in training.
        judge: model that only counted; None when the classifier is all there is.
        seed: root of every random stream of the run.
        confidence: of every interval, in (0, 1).
        bootstrap: resamples behind the intervals that are not of a share.
        fit_samples: fresh samples from which each fit was estimated.
        debias: what was asked of de-biasing: to train flows, to fit multipliers alone, or nothing but to measure.
        yaml: all parameters, as they were resolved.
        condition: the range of each coordinate that the control's flow is told, in the order of a sweep's columns.
        judge_steers: whether the judge took part in training as well, so that it is none.
    """

    asked: str
    classifier: str
    judge: str | None
    seed: int
    confidence: float
    bootstrap: int
    fit_samples: int
    debias: Literal["train", "fit", "measure"]
    yaml: str
    condition: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    judge_steers: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Settings:
        """Pick the settings from resolved parameters, given as plain mappings."""
        debias, evaluation = params["debias"], params["evaluation"]
        energies = params["control"]["energies"] if params["control"] else {}
        return cls(
            asked=listing([_asked(name, energy) for name, energy in energies.items()]),
            classifier=_model_name(debias["classifier"]),
            judge=_model_name(debias["judge"]) if debias.get("judge") else None,
            seed=params["seed"],
            confidence=evaluation["confidence"],
            bootstrap=evaluation["bootstrap"],
            fit_samples=evaluation["fit_samples"],
            debias=_asked_of(debias),
            yaml=yaml.safe_dump(dict(params), sort_keys=False, allow_unicode=True, width=100),
            condition=dict(sorted(((params["control"] or {}).get("condition") or {}).items())),
            judge_steers=_steers(debias.get("judge"), debias, energies.values()),
        )


def _asked(name: str, energy: Mapping[str, Any]) -> str:
    """Return what an energy asks for: its text, its classes, a pose, or how it is called in the parameters."""
    if "text" in energy:
        return f"“{energy['text']}”"
    if energy.get("type") in ASKED:
        return ASKED[energy["type"]]
    return listing([class_name(*wanted) for wanted in energy.get("labels", {}).items()]) or name


def _asked_of(debias: Mapping[str, Any]) -> Literal["train", "fit", "measure"]:
    if debias.get("max_passes") == 0:
        return "measure"
    return "fit" if debias.get("training", {}) is None else "train"


def _steers(judge: Any, debias: Mapping[str, Any], energies: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether the judge is the classifier that flows are de-biased with, or a model of the control."""
    if judge is None:
        return False
    model = judge.get("model") if isinstance(judge, Mapping) else judge
    asked = any(judge == energy.get("classifier") or model in energy.get("models", {}) for energy in energies)
    return asked or (_asked_of(debias) == "train" and judge == debias["classifier"])


def _model_name(spec: str | Mapping[str, Any]) -> str:
    """Return how a model is called: the name of its card, or the factory of a user's own."""
    if isinstance(spec, str):
        return spec
    if "classifiers" in spec:
        return listing([_model_name(part) for part in spec["classifiers"]])
    return str(spec.get("model") or spec["factory"])


@dataclass(frozen=True)
class Run:
    """A run of the loop: all the page needs, and nothing it has to look up.

    Args:
        metrics: the numbers.
        material: pictures and histories, one per pass in the order of `metrics.passes`.
        settings: what was asked for, and how it was measured.
        models: sha256 of every model file, by model name.
        tracking: ids by which the run is found in MLflow; empty when it was not recorded.
    """

    metrics: Metrics
    material: Sequence[PassMaterial]
    settings: Settings
    models: Mapping[str, str] = field(default_factory=dict)
    tracking: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.material) != len(self.metrics.passes):
            raise DataError(f"{len(self.metrics.passes)} passes are recorded but {len(self.material)} have pictures")
