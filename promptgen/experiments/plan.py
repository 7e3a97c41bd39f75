"""What running an experiment would take, from its parameters and cards alone: no weights are read, nothing is built.

Images, optimiser steps and flow parameters are counted exactly; a loop that reaches its target early makes fewer, and
so does a training on evaluations whose flow fits well after one round.
Arithmetic and memory are estimates, from the cost of one image on each model's card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from promptgen.config.draws import Draw, confirming, fitting, measuring
from promptgen.config.params import Params, PassKind
from promptgen.config.spec import Shape
from promptgen.evaluations.config import ROUNDS, Allotment, ReuseConfig
from promptgen.flows.config import TrainingConfig
from promptgen.model_files.addresses import shown
from promptgen.model_files.cards import Card, Cost, find_card
from promptgen.model_files.pins import read_pins

MIB = 2**20
FLOW_BYTES = 16
"""Memory per flow parameter in training: the parameter, its gradient and two moments of Adam, 32 bits each."""


SAMPLING = ("measuring", "confirming")
"""Purposes whose images are measured or shown."""
WITHOUT_GRADIENT = ("multipliers", "fitting energies", *SAMPLING)


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


Usage = dict[str, Images]
"""Images by model: the name of a card, or the dotted path of the user's code."""


@dataclass(frozen=True)
class PlannedFile:
    """A weight file.

    Attributes:
        file: its name.
        size: bytes; None if neither the card nor an earlier fetch states it.
        sha256: of the whole file; None if neither the card nor an earlier fetch states it.
        known_from: where size and sha256 come from: ``card`` or ``models.lock``; None if unknown.
        is_there: whether the file has been fetched.
        source: its first address; None if there is no direct link.
    """

    file: str
    size: int | None
    sha256: str | None
    known_from: str | None
    is_there: bool
    source: str | None


@dataclass(frozen=True)
class PlannedModel:
    """A model with a card.

    Attributes:
        name: name of the card.
        roles: what the experiment needs it for.
        licence: licence on the card.
        files: its files; none with random weights.
        cost: cost of one image; None if it has not been measured.
    """

    name: str
    roles: tuple[str, ...]
    licence: str
    files: tuple[PlannedFile, ...]
    cost: Cost | None


@dataclass(frozen=True)
class Estimate:
    """A sum over the measured costs of several models.

    Attributes:
        value: the sum over the models that have been measured.
        unmeasured: the models that have not.
    """

    value: float
    unmeasured: tuple[str, ...]


@dataclass(frozen=True)
class PlannedPass:
    """One pass of the loop.

    Attributes:
        number: its number.
        kind: its kind.
        training: how its flow is trained; None without training.
        usage: images by purpose and by model, in the order of the steps.
        training_mib: memory of training, MiB; None without training.
        measuring_mib: memory of everything that needs no gradient, MiB.
    """

    number: int
    kind: PassKind
    training: ReuseConfig | TrainingConfig | None
    usage: dict[str, Usage]
    training_mib: Estimate | None
    measuring_mib: Estimate

    @property
    def micro_batch(self) -> int | None:
        """Samples that are trained on at a time; None without training."""
        return self.training.at_once if self.training else None


@dataclass(frozen=True)
class Plan:
    """What running an experiment would take.

    Attributes:
        params: its parameters.
        about: one line on what it does.
        shape: size of latents and images; None if only the built generator can tell.
        flow_parameters: trainable parameters of a flow by kind of pass; None without a shape.
        models: every model with a card.
        passes: the passes; of de-biasing passes, the maximum number.
        images: images by model, over all passes.
        giga_macs: multiply-accumulates of all networks, 10^9.
    """

    params: Params
    about: str
    shape: Shape | None
    flow_parameters: dict[PassKind, int] | None
    models: tuple[PlannedModel, ...]
    passes: tuple[PlannedPass, ...]
    images: Usage
    giga_macs: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON content."""
        content = TypeAdapter(Plan).dump_python(self, mode="json", exclude={"params", "shape", "flow_parameters"})
        return {
            "experiment": self.params.experiment,
            "generator": self.params.generator.name,
            "image_size": self.shape and self.shape.image_size,
            "latent": self.shape and dict(self.shape.latent),
            "flow": {**self.params.flow.model_dump(mode="json"), "parameters": self.flow_parameters},
            **content,
        }


def plan_of(params: Params, models: Path, about: str = "", number: int | None = None) -> Plan:
    """Return the plan of an experiment, or of one of its passes.

    Args:
        params: the experiment.
        models: folder of the weight files, which need not exist.
        about: one line on what it does.
        number: the pass; None means all.

    Raises:
        ConfigError: there is no such pass or card, or the generator's arguments do not fit its network.
    """
    name = params.generator.name
    named = [card] if (card := params.generator.card_name) else []  # with random weights, too, its card is read
    cards = {name: find_card(name, models) for name in dict.fromkeys([*named, *params.cards])}
    shape = (params.generator.shape(cards[name]) if name in cards else None) or params.generator.own_shape(models)
    numbers = range(params.last_pass + 1) if number is None else [number]
    passes = tuple(_pass(params, number, cards, shape) for number in numbers)
    return Plan(
        params=params,
        about=about,
        shape=shape,
        flow_parameters=_flow_parameters(params, shape) if shape else None,
        models=tuple(_model(params, name, card, models) for name, card in cards.items()),
        passes=passes,
        images=_total(usage for planned in passes for usage in planned.usage.values()),
        giga_macs=_giga_macs(params, passes, cards),
    )


def usage_of_pass(params: Params, number: int) -> dict[str, Usage]:
    """Return the images of a pass by purpose, in the order of the steps.

    Raises:
        ConfigError: there is no such pass.
    """
    kind, usage = params.kind_of(number), dict[str, Usage]()
    if kind == "debias":
        usage["multipliers"] = _seen(params, [fitting(params, number)])
    if kind == "control" and params.control and (n := params.control.fitted_to):
        readers = [name for spec in params.control.diversity for name in spec.features.names()]
        usage["fitting energies"] = dict.fromkeys([params.generator.name, *readers], Images(n))
    training = params.training_of(number)
    if isinstance(training, ReuseConfig):
        usage |= _reuse(params, number, training)
    elif training:
        dual = params.debias.dual if kind == "debias" else None
        fixed_from = dual.phases(training.steps)[1] if dual else 0
        for purpose, samples in training.samples(params.evaluation.fit_samples, fixed_from).items():
            backward = samples if purpose == "training" else 0
            views = views_of_pass(params, number).items()
            usage[purpose] = {name: Images(samples * times, backward * times) for name, times in views}
    if number <= params.last_measured_pass:
        usage["measuring"] = _seen(params, measuring(params, number).values())
    if number == params.last_measured_pass and params.stops_by_count:
        usage["confirming"] = _seen(params, [confirming(params)])
    return usage


def _reuse(params: Params, number: int, training: ReuseConfig) -> dict[str, Usage]:
    """Return the images of a training on evaluations, by purpose; nothing if the budget is in minutes."""
    if training.budget.images is None:
        return {}
    debiases = params.kind_of(number) == "debias"
    specs = [params.debias.classifier] if debiases or not params.control else list(params.control.energies.values())
    differentiable = all(spec.differentiable for spec in specs)
    allotment = Allotment.of(
        training.budget.images, params.evaluation.fit_samples, differentiable=differentiable, lands=debiases
    )
    views = views_of_pass(params, number)
    if not debiases and params.stops_by_count:  # the classifier reads each image, for the passes that follow
        views.update({name: 1 for name in params.debias.classifier.names() if name not in views})
    explore, refine = allotment.explore, allotment.refine
    purposes = {
        "exploring": (len(explore), explore.gradients),
        "refining": (ROUNDS * len(refine), ROUNDS * refine.gradients),
        "landing": (allotment.land, 0),
        "judging the fit": (allotment.fit, 0),
    }
    return {
        purpose: {name: Images(n * times, gradients * times) for name, times in views.items()}
        for purpose, (n, gradients) in purposes.items()
        if n
    }


def views_of_pass(params: Params, number: int) -> Counter[str]:
    """Return how many images of one training sample of a pass each model makes or sees."""
    name, control = params.generator.name, params.control
    if params.kind_of(number) == "debias" or control is None:
        return Counter([name, *params.debias.classifier.names()])
    energies = control.energies.values()
    anchored = any(part.needs_anchor for energy in energies for part in energy.simple())
    return sum((energy.views() for energy in energies), Counter({name: 2 if anchored else 1}))


def _seen(params: Params, draws: Iterable[Draw]) -> Usage:
    """Return the images that the generator makes without a gradient, and those that models see of them."""
    return _total(
        {name: Images(draw.images)}
        for draw in draws
        for name in [params.generator.name, *(name for reader in draw.readers for name in reader.names())]
    )


def _total(usages: Iterable[Usage]) -> Usage:
    total: Usage = {}
    for usage in usages:
        for name, images in usage.items():
            total[name] = total.get(name, Images()) + images
    return total


def _pass(params: Params, number: int, cards: Mapping[str, Card], shape: Shape | None) -> PlannedPass:
    kind, training, usage = params.kind_of(number), params.training_of(number), usage_of_pass(params, number)
    training_mib = None
    if training:  # the graph holds what every model keeps for each of its images
        images = {name: training.at_once * times for name, times in views_of_pass(params, number).items()}
        flow = _flow_parameters(params, shape)[kind] * FLOW_BYTES / MIB if shape else 0.0
        training_mib = _sum(images, cards, lambda name, cost: cost.memory_mib(images[name], gradient=True), flow)
    images_read = _total(part for purpose, part in usage.items() if purpose in WITHOUT_GRADIENT)
    batches = [
        params.evaluation.batch * cost.forward_mib
        for name in images_read
        if name in cards and (cost := cards[name].cost)
    ]
    measuring_mib = _sum(images_read, cards, lambda _, cost: cost.weights_mib, max(batches, default=0.0))
    return PlannedPass(number, kind, training, usage, training_mib, measuring_mib)


def _giga_macs(params: Params, passes: Iterable[PlannedPass], cards: Mapping[str, Card]) -> Estimate:
    """Return the arithmetic; the gradient by the input of a frozen network costs about as much as its output."""
    generator = params.generator
    usages = [part for planned in passes for part in planned.usage.items()]

    def work(name: str, cost: Cost) -> float:
        images = 0.0
        for purpose, usage in usages:
            used = usage.get(name, Images())
            sampling = purpose in SAMPLING
            times = generator.relative_cost(cards[name], sampling=sampling) if name == generator.name else 1.0
            images += times * (used.forward + used.backward)
        return cost.gmac * images

    return _sum(_total(usage for _, usage in usages), cards, work)


def _sum(
    names: Iterable[str], cards: Mapping[str, Card], figure: Callable[[str, Cost], float], start: float = 0.0
) -> Estimate:
    costs = {name: cards[name].cost if name in cards else None for name in names}
    value = sum((figure(name, cost) for name, cost in costs.items() if cost is not None), start)
    return Estimate(value, tuple(name for name, cost in costs.items() if cost is None))


def _flow_parameters(params: Params, shape: Shape) -> dict[PassKind, int]:
    """Return the trainable parameters of a flow by kind of pass; only the control's has a condition."""
    kinds = [params.kind_of(number) for number in range(params.last_pass + 1) if params.training_of(number)]
    return {
        kind: params.flow.parameters(shape.dim, len(params.condition) if kind == "control" else 0, shape.held)
        for kind in kinds
    }


def _model(params: Params, name: str, card: Card, models: Path) -> PlannedModel:
    roles = [role for role, spec in params.roles.items() if name in spec.cards()]
    if name == params.generator.name and "generator" not in roles:
        roles.insert(0, "generator")
    needed = name in params.cards  # or else its weights are random
    pins, files = read_pins(models), []
    for file in card.files if needed else []:
        pin = pins.get(f"{name}/{file.file}")
        known_from = "card" if file.sha256 else "models.lock" if pin else None
        facts: Any = file if file.sha256 or pin is None else pin
        is_there = (models / name / file.file).is_file()
        source = shown(file.urls[0]) if file.urls else None
        files.append(PlannedFile(file.file, facts.size, facts.sha256, known_from, is_there, source))
    return PlannedModel(name, tuple(roles), card.licence, tuple(files), card.cost)
