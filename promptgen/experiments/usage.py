"""How many images a pass makes and shows to each model, counted from the parameters alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from promptgen.config.build import cards_of, custom_code_of
from promptgen.config.params import Params
from promptgen.config.specs import (
    ClassifierSpec,
    ClipTextSpec,
    CustomModel,
    EnergySpec,
    IdentitySpec,
    ModelSpec,
    MomentSpec,
    PoseSpec,
    ReaderSpec,
    simple_energies,
)
from promptgen.flows.training import TrainingConfig
from promptgen.metrics.identity import PAIRS
from promptgen.moments.config import DualConfig

SWEEP_IMAGES = 42
"""Pictures that show one coordinate of a condition: so many latents by so many values, see `steps.sample`."""


@dataclass(frozen=True)
class Images:
    """Number of images that go through a model.

    Attributes:
        forward: all of them.
        backward: those of them with a gradient back to the latent.
    """

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Images) -> Images:
        return Images(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: int) -> Images:
        return Images(self.forward * times, self.backward * times)


Usage = Mapping[str, Images]
"""Images by model: the name of a card, or the dotted path of one's own."""


def total(usages: Iterable[Usage]) -> dict[str, Images]:
    """Return the sum of usages."""
    added: dict[str, Images] = {}
    for usage in usages:
        for name, images in usage.items():
            added[name] = added.get(name, Images()) + images
    return added


def usage_of_pass(params: Params, number: int) -> dict[str, Usage]:
    """Return the images of a pass by what they are made for, in the order of the steps.

    Raises:
        ConfigError: there is no such pass.
    """
    kind, debias = params.kind_of(number), params.debias
    found: dict[str, Usage] = {}
    if kind == "debias":
        found["multipliers"] = _shown(params, debias.samples, [debias.classifier])
    if (training := training_of(params, number)) is not None:
        found |= _training(params, number, training, debias.dual if kind == "debias" else None)
    if number <= params.last_measured_pass:
        found["measuring"] = _measuring(params, number)
    if number == params.last_measured_pass and params.stops_by_count:
        found["confirming"] = _shown(params, params.evaluation.samples, [debias.classifier, debias.judge])
    return found


def training_of(params: Params, number: int) -> TrainingConfig | None:
    """Return how the flow of a pass is trained; None where there is none."""
    kind = params.kind_of(number)
    if kind == "control" and params.control:
        return params.control.training
    return params.debias.training if kind == "debias" else None


def images_per_sample(params: Params, number: int) -> Counter[str]:
    """Return how many images of one training sample of a pass each model makes or is shown.

    An energy that holds each image against the null condition's makes the generator's two; each augmented copy counts.
    """
    seen = Counter({generator_name(params): 1})
    if params.kind_of(number) == "debias" or params.control is None:
        return seen + Counter(names_of(params.debias.classifier))
    parts = [part for spec in params.control.energies.values() for part in simple_energies(spec)]
    if any(isinstance(part, IdentitySpec) for part in parts):
        seen[generator_name(params)] = 2
    for part in parts:
        seen.update(dict(_views(part)))
    return seen


def validations(training: TrainingConfig, dual: DualConfig | None = None) -> int:
    """Return how often a training estimates its held-out loss: not before its multipliers are fixed, and at its end."""
    first = 0
    if dual is not None:
        warm = round(training.steps * dual.warm_up)
        first = max(warm + 1, round(training.steps * (1 - dual.hold)))
    due = {step for step in range(first, training.steps) if step % training.validate_every == 0 or step == first}
    return len(due) + 1


def names_of(spec: ModelSpec | ReaderSpec) -> list[str]:
    """Return what a model is called: the name of its card, or its dotted path."""
    return [*cards_of(spec), *custom_code_of(spec)]


def generator_name(params: Params) -> str:
    """Return what the generator is called."""
    generator = params.generator
    return generator.factory if isinstance(generator, CustomModel) else generator.model


def _views(spec: EnergySpec) -> Iterator[tuple[str, int]]:
    match spec:
        case ClipTextSpec():
            yield from ((name, max(spec.augmentations, 1)) for name in spec.models)
        case ClassifierSpec() | MomentSpec():
            yield from ((name, 1) for name in names_of(spec.classifier))
        case PoseSpec():
            yield from ((name, 1) for name in names_of(spec.estimator))
        case IdentitySpec():
            yield from ((name, 2) for name in names_of(spec.embedder))
        case _:
            return


def _training(params: Params, number: int, training: TrainingConfig, dual: DualConfig | None) -> dict[str, Usage]:
    per_sample, steps = images_per_sample(params, number), training.steps * training.batch
    samples = {
        "training": Images(steps, steps),
        "choosing the best flow": Images(validations(training, dual) * training.validation_samples),
        "judging the fit": Images(params.evaluation.fit_samples),
    }
    return {what: {name: images * times for name, times in per_sample.items()} for what, images in samples.items()}


def _measuring(params: Params, number: int) -> dict[str, Images]:
    debias, evaluation = params.debias, params.evaluation
    pose = params.control.pose if params.control else None
    optional = (evaluation.identity, evaluation.features, pose.estimator if pose else None)
    asked = [debias.classifier, debias.judge, *(spec for spec in optional if spec)]
    usages = [
        _shown(params, evaluation.samples, asked),
        _shown(params, evaluation.grid),
    ]
    if number > 0 and params.condition:  # which the generator hears from the control's pass on
        usages.append(_shown(params, SWEEP_IMAGES * len(params.condition)))
        if evaluation.identity:
            usages.append(_shown(params, min(PAIRS, evaluation.samples), [evaluation.identity]))
    return total(usages)


def _shown(params: Params, samples: int, readers: Iterable[ModelSpec | ReaderSpec] = ()) -> dict[str, Images]:
    """Return the images of samples without gradient that are shown to some models."""
    names = [name for reader in readers for name in names_of(reader)]
    return total({name: Images(samples)} for name in [generator_name(params), *names])
