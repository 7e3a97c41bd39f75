"""Every key of `params.yaml`, which holds every number of an experiment.

The file is read once, into frozen models that reject unknown keys. The keys of models, generators and energies are in
`promptgen.config.models`, `promptgen.config.generators` and `promptgen.config.energies`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from promptgen.conditions import Condition, Range
from promptgen.config.debias import Debias, Target
from promptgen.config.energies import DiversitySpec, EnergySpec, PoseSpec
from promptgen.config.generators import GeneratorSpec
from promptgen.config.models import ModelSpec
from promptgen.config.spec import Name, Spec
from promptgen.config.workflow import Schedule, Tracking
from promptgen.drawn import PROMPT
from promptgen.engine.config import EngineConfig, InlineConfig, RayConfig
from promptgen.errors import ConfigError, DataError
from promptgen.evaluations.config import AnyTraining, ReuseConfig
from promptgen.flows.config import FlowConfig, TrainingConfig
from promptgen.metrics.sizes import LEAST_SAMPLES
from promptgen.strict import Section, read_yaml, validate
from promptgen.world.config import WorldConfig

PassKind = Literal["generator", "control", "debias"]
Precision = Literal["float32", "bfloat16", "float16"]


class Control(Section):
    """What the generator should show: the first flow is trained for it.

    Attributes:
        energies: the energies, by a name of your choice that logs, figures and errors use.
        measure: label whose share the report shows, by attribute; usually what the energies ask for.
        training: how the flow is trained.
        condition: range of each coordinate of the flow's condition, by name. Training and sampling draw the condition
            of each sample uniformly from these ranges. A pose energy reads `pitch`, `yaw` and `roll`, in radians. null
            trains an unconditional flow.
    """

    energies: Annotated[dict[Name, EnergySpec], Field(min_length=1)]
    measure: dict[str, str]
    training: AnyTraining
    condition: Annotated[dict[Name, Range], Field(min_length=1)] | None = None

    @property
    def box(self) -> Condition:
        """The condition of the flow; its columns are in alphabetical order, whatever the order in the file."""
        return Condition(dict(sorted((self.condition or {}).items())))

    @property
    def pose(self) -> PoseSpec | None:
        """The first energy that reads a pose, or None."""
        return next((spec for _, spec in self._simple() if isinstance(spec, PoseSpec)), None)

    @property
    def diversity(self) -> list[DiversitySpec]:
        """The energies that are fitted to images of the generator before they are used."""
        return [spec for _, spec in self._simple() if isinstance(spec, DiversitySpec)]

    @property
    def fitted_to(self) -> int:
        """Number of the generator's own images that energies are fitted to; 0 if none is."""
        return max((spec.samples for spec in self.diversity), default=0)

    @property
    def condition_is_read(self) -> bool:
        """Whether some energy may depend on the condition; an identity energy alone does not."""
        return any(spec.reads_condition for _, spec in self._simple())

    @field_validator("condition")
    @classmethod
    def _ranges_hold_zero(cls, condition: dict[str, Range] | None) -> dict[str, Range] | None:
        try:
            Condition(condition or {})
        except DataError as error:
            raise ValueError(str(error)) from error
        return condition

    @model_validator(mode="after")
    def _energies_suit_the_method(self) -> Self:
        reuses = isinstance(self.training, ReuseConfig)
        for name, spec in self._simple():
            if reuses and spec.needs_anchor:
                raise ValueError(
                    f"the energy {name} compares two images, but the method reuse records each one by itself: choose "
                    "`training: {method: on_policy, ...}`"
                )
            if not reuses and not spec.differentiable:
                raise ValueError(f"the energy {name} has no gradient: use the method reuse")
        return self

    @model_validator(mode="after")
    def _condition_suits_the_energies(self) -> Self:
        for name, spec in self._simple():
            kind = getattr(spec, "type", type(spec).__name__)
            if spec.needs_condition and not self.condition:
                raise ValueError(
                    f"the energy {name} ({kind}) needs a condition, such as `condition: {{yaw: [-0.3, 0.3]}}`"
                )
            if spec.coordinates and not set(spec.coordinates) & set(self.box.names):
                coordinates = ", ".join(spec.coordinates)
                raise ValueError(f"the energy {name} ({kind}) reads {coordinates}; condition names none of them")
        return self

    def _simple(self) -> Iterator[tuple[str, EnergySpec]]:
        """Yield each simple energy with the name in params.yaml that it belongs to."""
        for name, spec in self.energies.items():
            for part in spec.simple():
                yield name, part


class Evaluation(Section):
    """How each pass is measured.

    Attributes:
        samples: samples that the shares are counted on.
        batch: images per batch.
        confidence: confidence level of all intervals, in (0, 1).
        bootstrap: resamples for intervals that have no closed form.
        fit_samples: samples that log Z and the effective sample size are estimated from.
        grid: images in the sample grid; every pass draws them from the same noise.
        identity: model that embeds identities; null skips the diversity of identities.
        features: network whose features compare the samples with the generator's own; null skips the Frechet and
            kernel distances, precision and recall.
        watch: attributes, or products such as ``hair x glasses``, to measure without de-biasing them, each with its
            reference shares; null means equal shares.
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
    def _samples_suffice_for_features(self) -> Self:
        least = 2 * LEAST_SAMPLES  # one half is compared with the other
        if self.features is not None and self.samples < least:
            raise ValueError(f"features need at least {least} samples, got samples: {self.samples}")
        return self


class Params(Section):
    """The whole of params.yaml.

    Attributes:
        experiment: name of the experiment; its results are in artifacts/ under this name.
        seed: seed of every random stream.
        device: where networks run: ``cpu``, ``cuda``, ``cuda:1`` and so on, or ``auto`` for a GPU if there is one.
        precision: floating-point type in which the generator and the models that see its images compute.
        compile: whether these networks are compiled, which takes minutes and makes them faster.
        engine: where images are made and read: in this process, in several, or on a Ray cluster.
        generator: the frozen generator.
        control: what the generator should show; null de-biases the generator as it is.
        debias: which shares are the target, and how they are reached.
        flow: size of each flow.
        evaluation: how each pass is measured.
        tracking: where MLflow records the runs.
        schedule: when the experiment runs by itself; null means never.
        models: names of the cards to fetch.
        world: how the embedded world is made; read by `promptgen build-world` only.
    """

    experiment: Name
    seed: Annotated[int, Field(ge=0)]
    device: str = "cpu"
    precision: Precision = "float32"
    compile: bool = False
    engine: EngineConfig = InlineConfig()
    generator: GeneratorSpec
    control: Control | None
    debias: Debias
    flow: FlowConfig
    evaluation: Evaluation
    tracking: Tracking
    schedule: Schedule | None
    models: list[Name]
    world: WorldConfig | None = None

    @model_validator(mode="after")
    def _target_within_each_drawn_label(self, info: ValidationInfo) -> Self:
        if (name := self.debias.within) is None:
            return self
        drawn = self.generator.drawn((info.context or Path()) / "models")
        if drawn is None or drawn.name != name:
            key = "prompts" if name == PROMPT else "classes"
            example = "{a nurse: 0.5, a builder: 0.5}" if name == PROMPT else "{0: 0.5, 1: 0.5}"
            raise ValueError(
                f"debias.within: the generator draws no {name}; give it shares, such as `{key}: {example}`"
            )
        return self.model_copy(update={"debias": self.debias.within_each(drawn)})

    @model_validator(mode="after")
    def _device_suits_the_engine(self) -> Self:
        if isinstance(self.engine, RayConfig):
            if self.device not in ("auto", "cpu", "cuda"):
                raise ValueError(f"device: {self.device} names one GPU, but Ray gives each worker its own: choose auto")
            if self.device == "cpu" and self.engine.gpus_per_worker:
                raise ValueError("device: cpu leaves GPUs unused: set engine.gpus_per_worker to 0, or device to auto")
        return self

    @model_validator(mode="after")
    def _rank_suits_the_method(self) -> Self:
        if self.flow.rank is not None and self.moves_all_directions:
            raise ValueError(
                f"flow.rank: {self.flow.rank} confines flows to directions found by the method reuse, but another "
                "method moves all of them: set it to null, or choose `method: reuse`"
            )
        return self

    @property
    def roles(self) -> dict[str, Spec]:
        """Everything that the experiment is made of, by what it is for."""
        optional = {"identities": self.evaluation.identity, "features": self.evaluation.features}
        energies = self.control.energies if self.control else {}
        return {
            "generator": self.generator,
            "classifier": self.debias.classifier,
            "judge": self.debias.judge,
            **{role: spec for role, spec in optional.items() if spec is not None},
            **{f"energy {name}": spec for name, spec in energies.items()},
        }

    @property
    def specs(self) -> list[Spec]:
        """Everything that the experiment is made of."""
        return list(self.roles.values())

    @property
    def cards(self) -> list[str]:
        """Names of the cards whose files the experiment needs, each once."""
        return list(dict.fromkeys(name for spec in self.specs for name in spec.cards()))

    @property
    def condition(self) -> Condition:
        """The condition of the control's flow; empty if that is unconditional."""
        return self.control.box if self.control else Condition()

    @property
    def first_debias_pass(self) -> int:
        """Number of the first de-biasing pass."""
        return 1 if self.control is None else 2

    @property
    def only_fits(self) -> bool:
        """Whether the loop ends with the multipliers of the first de-biasing pass, and trains no flow with them."""
        return self.debias.training is None and self.debias.max_passes > 0

    @property
    def stops_by_count(self) -> bool:
        """Whether the counts of a pass decide when the loop ends."""
        return self.debias.training is not None and self.debias.max_passes > 0

    @property
    def moves_all_directions(self) -> bool:
        """Whether some flow certainly moves every direction of the latent; `reuse` confines flows to a few."""
        sections = [self.control.training if self.control else None, self.debias.training]
        trainings = [training for training in sections if training is not None]
        return bool(self.flow.parts) or not all(isinstance(training, ReuseConfig) for training in trainings)

    @property
    def last_measured_pass(self) -> int:
        """Number of the last pass that may be sampled and measured."""
        passes = 0 if self.only_fits else self.debias.max_passes
        return self.first_debias_pass + passes - 1

    @property
    def last_pass(self) -> int:
        """Number of the last pass that may run, even if it only fits multipliers."""
        return self.last_measured_pass + self.only_fits

    def kind_of(self, number: int) -> PassKind:
        """Return the kind of pass `number`.

        Raises:
            ConfigError: the experiment has no such pass.
        """
        if not 0 <= number <= self.last_pass:
            raise ConfigError(f"pass {number} is not in this experiment, whose passes are 0 to {self.last_pass}")
        if number == 0:
            return "generator"
        return "debias" if number >= self.first_debias_pass else "control"

    def reuses(self, number: int) -> bool:
        """Return whether the flow of pass `number` is trained on evaluations that are kept."""
        return isinstance(self.training_of(number), ReuseConfig)

    def training_of(self, number: int) -> ReuseConfig | TrainingConfig | None:
        """Return how the flow of pass `number` is trained, or None if the pass trains no flow.

        Raises:
            ConfigError: the experiment has no such pass.
        """
        kind = self.kind_of(number)
        if kind == "control" and self.control:
            return self.control.training
        return self.debias.training if kind == "debias" else None


def load_params(path: Path | str) -> Params:
    """Read params.yaml.

    Raises:
        ConfigError: the file is missing or is not YAML, or a key is unknown, missing, ill-typed or out of range.
    """
    data = read_yaml(path)
    try:
        return validate(Params, data, Path(path).parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
