"""Every number of an experiment: `params.yaml`, read once into frozen models that reject what they do not know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from promptgen.conditions import Condition, Range
from promptgen.config.specs import (
    CustomEnergySpec,
    EnergySpec,
    GeneratorSpec,
    IdentitySpec,
    ModelSpec,
    Name,
    PoseSpec,
    Positive,
    ReaderSpec,
    Share,
    Spec,
    simple_energies,
)
from promptgen.errors import ConfigError, DataError
from promptgen.flows.flow import FlowConfig
from promptgen.flows.training import TrainingConfig
from promptgen.metrics.quality import LEAST_SAMPLES
from promptgen.moments.config import DualConfig
from promptgen.rotations import EULER
from promptgen.strict import Section, read_yaml, validate
from promptgen.world.config import WorldConfig

PassKind = Literal["generator", "control", "debias"]


def _sums_to_one(target: dict[str, float]) -> dict[str, float]:
    total = sum(target.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the shares must sum to 1, these sum to {total:g}")
    return target


Target = Annotated[dict[str, Positive], Field(min_length=2), AfterValidator(_sums_to_one)]
"""Wanted share of every label."""


class Control(Section):
    """What the generator is asked for.

    Attributes:
        energies: the energies by name; names appear in logs, figures and errors.
        measure: label that the control asks for by attribute; its share is reported.
        training: how the flow of this pass is trained.
        condition: what the flow is told besides its noise: range of each coordinate by name, from which it is drawn
            uniformly and afresh for every sample; null makes a flow that is told nothing. A pose energy reads `pitch`,
            `yaw` and `roll`, radians.
    """

    energies: Annotated[dict[Name, EnergySpec], Field(min_length=1)]
    measure: dict[str, str]
    training: TrainingConfig
    condition: Annotated[dict[Name, Range], Field(min_length=1)] | None = None

    @property
    def box(self) -> Condition:
        """The condition of the flow; its columns are in alphabetical order, whatever the order in the file."""
        return Condition(dict(sorted((self.condition or {}).items())))

    @property
    def pose(self) -> PoseSpec | None:
        """The energy that reads a pose, if there is one."""
        return next((spec for _, spec in self._simple() if isinstance(spec, PoseSpec)), None)

    @property
    def condition_is_read(self) -> bool:
        """Whether some energy may depend on the condition: an identity alone only holds the null condition's face."""
        return any(isinstance(spec, PoseSpec | CustomEnergySpec) for _, spec in self._simple())

    @field_validator("condition")
    @classmethod
    def _ranges_hold_zero(cls, condition: dict[str, Range] | None) -> dict[str, Range] | None:
        try:
            Condition(condition or {})
        except DataError as error:
            raise ValueError(str(error)) from error
        return condition

    @model_validator(mode="after")
    def _condition_is_there(self) -> Self:
        for name, spec in self._simple():
            if isinstance(spec, PoseSpec | IdentitySpec) and not self.condition:
                raise ValueError(
                    f"the energy {name} ({spec.type}) needs a condition, such as `condition: {{yaw: [-0.3, 0.3]}}`"
                )
            if isinstance(spec, PoseSpec) and not set(EULER) & set(self.box.names):
                raise ValueError(f"the energy {name} (pose) reads {', '.join(EULER)}; condition names none of them")
        return self

    def _simple(self) -> Iterator[tuple[str, EnergySpec]]:
        """Yield every simple energy with the name that it, or what it is a part of, has."""
        for name, spec in self.energies.items():
            for part in simple_energies(spec):
                yield name, part


class Debias(Section):
    """Which shares are wanted, and how they are reached.

    Attributes:
        attribute: the attribute whose shares are wanted, or a product such as ``hair x glasses``.
        target: wanted share of every label (of a product: ``short x with``); sums to 1.
        classifier: the model that the flow is trained with.
        judge: the model that counts; it takes no part in training.
        features: ``hard`` fits the shares of labels, ``soft`` the mean probabilities.
        max_passes: de-biasing passes at the most; with 0 the shares are only measured.
        samples: number of samples the moments are fitted on.
        ess_floor: least effective sample size of the tilt, as a fraction of the samples.
        bootstrap: resamples for the interval of the multipliers.
        training: how the flow of a pass is trained; null fits the multipliers on what was measured last, and no more.
        dual: how the multipliers follow the flow; null keeps them as fitted.
        weight: factor of the moment energy; 1 is the exact tilt.
    """

    attribute: str
    target: Target
    classifier: ReaderSpec
    judge: ReaderSpec
    features: Literal["hard", "soft"]
    max_passes: Annotated[int, Field(ge=0)]
    samples: Annotated[int, Field(ge=30)]
    ess_floor: Share
    bootstrap: Annotated[int, Field(ge=0)]
    training: TrainingConfig | None
    dual: DualConfig | None
    weight: Positive = 1.0


class Evaluation(Section):
    """How every pass is measured.

    Attributes:
        samples: number of samples the shares are counted on.
        batch: images at a time.
        confidence: confidence of all intervals.
        bootstrap: resamples for intervals without a closed form.
        fit_samples: number of samples from which log Z and the effective sample size are estimated.
        grid: pictures in the sample grid; the same noise in every pass.
        identity: card of the model that tells identities apart; null leaves diversity out.
        features: the network whose features tell how the samples look against the generator's own; null leaves the
            distances, precision and recall out.
        watch: attributes, or products such as ``hair x glasses``, that are measured though nobody moves them, with the
            share of every label that they are held against; null holds them against equal shares.
    """

    samples: Annotated[int, Field(ge=30)]
    batch: Annotated[int, Field(ge=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    bootstrap: Annotated[int, Field(ge=100)]
    fit_samples: Annotated[int, Field(ge=30)]
    grid: Annotated[int, Field(ge=1, le=256)]
    identity: ModelSpec | None
    features: ModelSpec | None = None
    watch: dict[str, Target | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _are_enough(self) -> Self:
        least = 2 * LEAST_SAMPLES  # half of them are compared with the other half
        if self.features is not None and self.samples < least:
            raise ValueError(f"features need at least {least} samples, got samples: {self.samples}")
        return self


class Tracking(Section):
    """Where MLflow puts the runs.

    Attributes:
        experiment: name of the MLflow experiment.
        registered_model: name under which chains are registered; null registers none.
    """

    experiment: Annotated[str, Field(min_length=1)]
    registered_model: str | None


class Schedule(Section):
    """When the experiment runs by itself.

    Attributes:
        cron: five fields, as of cron.
        timezone: name of the time zone, such as Europe/Berlin.
    """

    cron: str
    timezone: str


class Params(Section):
    """The whole of params.yaml.

    Attributes:
        experiment: name of the experiment and of its folder.
        seed: all randomness follows from it.
        device: where networks run: ``cpu``, ``cuda``, ``cuda:1`` and so on, or ``auto``, a GPU if there is one.
        generator: the frozen generator.
        control: what it is asked for; null de-biases the generator as it is.
        debias: which shares are wanted.
        flow: size of every flow.
        evaluation: how every pass is measured.
        tracking: where runs are recorded.
        schedule: when the experiment runs by itself; null for never.
        models: cards of the models that are fetched for it.
        world: how the embedded world is made; read by its builder alone.
    """

    experiment: Name
    seed: Annotated[int, Field(ge=0)]
    device: str = "cpu"
    generator: GeneratorSpec
    control: Control | None
    debias: Debias
    flow: FlowConfig
    evaluation: Evaluation
    tracking: Tracking
    schedule: Schedule | None
    models: list[Name]
    world: WorldConfig | None = None

    @property
    def specs(self) -> list[Spec]:
        """Everything that the experiment is made of."""
        evaluation, control = self.evaluation, self.control
        return [
            self.generator,
            self.debias.classifier,
            self.debias.judge,
            *(spec for spec in (evaluation.identity, evaluation.features) if spec),
            *(control.energies.values() if control else []),
        ]

    @property
    def condition(self) -> Condition:
        """What the flow of the control is told besides its noise; empty where that is nothing."""
        return self.control.box if self.control else Condition()

    @property
    def first_debias_pass(self) -> int:
        """Number of the first de-biasing pass."""
        return 1 if self.control is None else 2

    @property
    def only_fits(self) -> bool:
        """Whether the loop ends with the multipliers of the first de-biasing pass, which no flow is trained with."""
        return self.debias.training is None and self.debias.max_passes > 0

    @property
    def stops_by_count(self) -> bool:
        """Whether it is a count that ends the loop, or else its length is known before."""
        return self.debias.training is not None and self.debias.max_passes > 0

    @property
    def last_measured_pass(self) -> int:
        """Number of the last pass that may be sampled and measured."""
        passes = 0 if self.only_fits else self.debias.max_passes
        return self.first_debias_pass + passes - 1

    @property
    def last_pass(self) -> int:
        """Number of the last pass that may run, be it no further than its multipliers."""
        return self.last_measured_pass + self.only_fits

    def kind_of(self, number: int) -> PassKind:
        """Return what pass `number` is about.

        Raises:
            ConfigError: there is no such pass.
        """
        if not 0 <= number <= self.last_pass:
            raise ConfigError(f"pass {number} is not in this experiment, whose passes are 0 to {self.last_pass}")
        if number == 0:
            return "generator"
        return "debias" if number >= self.first_debias_pass else "control"


def load_params(path: Path | str) -> Params:
    """Read params.yaml.

    Raises:
        ConfigError: the file is missing or no YAML; a key is unknown, missing, ill-typed or out of range.
    """
    data = read_yaml(path)
    try:
        return validate(Params, data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
