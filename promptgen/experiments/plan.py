"""What running an experiment would take, from its parameters and cards alone: no weights are read, nothing is built.

Counts of images, optimiser steps and flow parameters are exact, but for de-biasing passes that turn out not to be
needed. Arithmetic and memory are estimates from what single images were measured to cost, see
`promptgen.experiments.costs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptgen.config.build import cards_of
from promptgen.config.params import Params, PassKind
from promptgen.config.specs import CustomModel, DiffAESpec, Spec
from promptgen.experiments.shapes import Shape, flow_parameters, shape_of
from promptgen.experiments.usage import (
    Images,
    Usage,
    generator_name,
    images_per_sample,
    total,
    training_of,
    usage_of_pass,
)
from promptgen.flows.training import TrainingConfig
from promptgen.generators.diffae_config import DiffAEConfig
from promptgen.model_files.cards import Card, CardFile, Cost, find_card, load_cards
from promptgen.model_files.pins import Pin, read_pins

MIB = 2**20
FLOW_BYTES = 16
"""Of memory per flow parameter in training: itself, its gradient and two moments of Adam, 32 bits each."""


@dataclass(frozen=True)
class PlannedFile:
    """A weight file.

    Attributes:
        file: its name.
        size: bytes; None where neither the card nor an earlier fetch tells.
        sha256: of the whole file; None as above.
        known_from: ``card``, ``models.lock``, or None as above.
        is_there: whether it has been fetched.
    """

    file: str
    size: int | None
    sha256: str | None
    known_from: str | None
    is_there: bool


@dataclass(frozen=True)
class PlannedModel:
    """A model with a card.

    Attributes:
        name: name of the card.
        roles: what the experiment needs it for.
        licence: as the card says.
        files: its files.
        cost: what one image costs, if it was measured.
    """

    name: str
    roles: tuple[str, ...]
    licence: str
    files: tuple[PlannedFile, ...]
    cost: Cost | None


@dataclass(frozen=True)
class Estimate:
    """An estimate that needs the measured costs of several models.

    Attributes:
        value: the estimate; what is known of it where costs are missing.
        unmeasured: the models whose cost is missing.
    """

    value: float
    unmeasured: tuple[str, ...]


@dataclass(frozen=True)
class PlannedPass:
    """A pass.

    Attributes:
        number: its number.
        kind: what it is about.
        training: how its flow is trained; None where there is none.
        usage: images by what they are made for and by model.
        micro_batch: samples that are trained on at a time; None without training.
        training_mib: memory of the training, MiB.
        measuring_mib: memory of what is done without gradient, MiB.
    """

    number: int
    kind: PassKind
    training: TrainingConfig | None
    usage: Mapping[str, Usage]
    micro_batch: int | None
    training_mib: Estimate | None
    measuring_mib: Estimate


@dataclass(frozen=True)
class Plan:
    """What running an experiment would take.

    Attributes:
        params: its parameters.
        about: what it is, in one line.
        generator: what its generator is called.
        shape: size of latents and images; None where only the built generator tells.
        flow_parameters: of each flow, by the kind of its pass; None as above.
        models: everything with a card.
        passes: the passes, de-biasing ones as many as there may be.
        giga_macs: multiply-accumulates of all networks, 10^9.
    """

    params: Params
    about: str
    generator: str
    shape: Shape | None
    flow_parameters: Mapping[str, int] | None
    models: tuple[PlannedModel, ...]
    passes: tuple[PlannedPass, ...]
    giga_macs: Estimate

    @property
    def images(self) -> dict[str, Images]:
        """Images by model, over all passes."""
        return total(usage for planned in self.passes for usage in planned.usage.values())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON content."""
        passes = [{**vars(planned), "training": _dump(planned.training)} for planned in self.passes]
        return {
            "experiment": self.params.experiment,
            "about": self.about,
            "generator": self.generator,
            "image_size": self.shape and self.shape.image_size,
            "latent": self.shape and dict(self.shape.latent),
            "flow": {**self.params.flow.model_dump(mode="json"), "parameters": self.flow_parameters},
            "models": [{**_plain(model), "cost": _dump(model.cost)} for model in self.models],
            "passes": [{key: _plain(value) for key, value in planned.items()} for planned in passes],
            "images": _plain(self.images),
            "giga_macs": _plain(self.giga_macs),
        }


def plan_of(params: Params, models: Path, about: str = "", number: int | None = None) -> Plan:
    """Return the plan of an experiment, or of one of its passes.

    Args:
        params: the experiment.
        models: folder of the weight files, which need not exist.
        about: what it is, in one line.
        number: the pass; None means all.

    Raises:
        ConfigError: there is no such pass, a card is missing or of another network than its arguments say.
    """
    cards, name = _cards(params, models), generator_name(params)
    costs = {name: card.cost for name, card in cards.items()}
    shape = shape_of(params.generator, cards.get(name))
    numbers = range(params.last_pass + 1) if number is None else [number]
    passes = tuple(_pass(params, each, costs, shape) for each in numbers)
    return Plan(
        params=params,
        about=about,
        generator=name,
        shape=shape,
        flow_parameters=_flows(params, shape) if shape else None,
        models=tuple(_model(name, card, _roles(params).get(name, ()), models) for name, card in cards.items()),
        passes=passes,
        giga_macs=_giga_macs(params, passes, cards),
    )


def _cards(params: Params, models: Path) -> dict[str, Card]:
    """Return the cards of everything that has one, the generator's first; with random weights it needs no file."""
    known, generator = load_cards(models), params.generator
    needed = [name for spec in params.specs for name in cards_of(spec)]
    named = [] if isinstance(generator, CustomModel) else [generator.model]
    cards = {name: known.get(name) or find_card(name, models) for name in [*named, *needed]}
    return {name: card if name in needed else card.model_copy(update={"files": []}) for name, card in cards.items()}


Costs = Mapping[str, Cost | None]


def _pass(params: Params, number: int, costs: Costs, shape: Shape | None) -> PlannedPass:
    training = training_of(params, number)
    usage = usage_of_pass(params, number)
    micro_batch = min(training.micro_batch or training.batch, training.batch) if training else None
    kind, seen = params.kind_of(number), images_per_sample(params, number)
    quiet = total(part for what, part in usage.items() if what in ("multipliers", "measuring", "confirming"))
    flow = _flows(params, shape).get(kind, 0) if shape else 0
    return PlannedPass(
        number=number,
        kind=kind,
        training=training,
        usage=usage,
        micro_batch=micro_batch,
        training_mib=_training_mib(seen, micro_batch, costs, flow) if micro_batch else None,
        measuring_mib=_measuring_mib(quiet, params.evaluation.batch, costs),
    )


def _training_mib(per_sample: Mapping[str, int], micro_batch: int, costs: Costs, flow: int) -> Estimate:
    """Return the memory of a training step, whose graph holds what all models keep for all their images."""
    known, missing = _known(per_sample, costs)
    mib = sum(cost.memory_mib(micro_batch * per_sample[name], gradient=True) for name, cost in known.items())
    return Estimate(mib + flow * FLOW_BYTES / MIB, missing)


def _measuring_mib(usage: Usage, batch: int, costs: Costs) -> Estimate:
    """Return the memory without gradient: all weights, and what the model that needs most keeps for a batch."""
    known, missing = _known(usage, costs)
    weights = sum(cost.weights_mib for cost in known.values())
    return Estimate(weights + batch * max((cost.forward_mib for cost in known.values()), default=0.0), missing)


def _giga_macs(params: Params, passes: Sequence[PlannedPass], cards: Mapping[str, Card]) -> Estimate:
    """Return the arithmetic; the gradient by the input of a frozen network costs about as much as its output."""
    work, missing = 0.0, dict[str, None]()
    for what, usage in (part for planned in passes for part in planned.usage.items()):
        known, unknown = _known(usage, {name: card.cost for name, card in cards.items()})
        missing |= dict.fromkeys(unknown)
        for name, cost in known.items():
            repeats = _repeats(params, cards[name], what) if name == generator_name(params) else 1.0
            work += cost.gmac * repeats * (usage[name].forward + usage[name].backward)
    return Estimate(work, tuple(missing))


def _repeats(params: Params, card: Card, what: str) -> float:
    """Return how many times the measured work an image of the generator takes: a diffusion's goes with its steps."""
    spec = params.generator
    if not isinstance(spec, DiffAESpec):
        return 1.0
    steps = spec.for_sampling().image_steps if what in ("measuring", "confirming") else spec.image_steps
    measured: int = card.arguments.get("image_steps", DiffAEConfig().image_steps)
    return steps / measured


def _known(names: Mapping[str, Any], costs: Costs) -> tuple[dict[str, Cost], tuple[str, ...]]:
    """Return the costs that are known, and the names of those that are not."""
    found = {name: costs.get(name) for name in names}
    return (
        {name: cost for name, cost in found.items() if cost is not None},
        tuple(name for name, cost in found.items() if cost is None),
    )


def _flows(params: Params, shape: Shape) -> dict[str, int]:
    """Return the parameters of a flow by the kind of its pass; that of the control may have a condition."""
    kinds: dict[str, int] = {}
    for number in range(params.last_pass + 1):
        if training_of(params, number) is not None:
            kind = params.kind_of(number)
            kinds[kind] = flow_parameters(shape.dim, params.flow, len(params.condition) if kind == "control" else 0)
    return kinds


def _roles(params: Params) -> dict[str, tuple[str, ...]]:
    """Return what each card is needed for."""
    named: list[tuple[str, Spec]] = [("classifier", params.debias.classifier), ("judge", params.debias.judge)]
    measuring = {"identities": params.evaluation.identity, "features": params.evaluation.features}
    named += [(role, spec) for role, spec in measuring.items() if spec]
    if params.control:
        named += [(f"energy {name}", spec) for name, spec in params.control.energies.items()]
    roles: dict[str, tuple[str, ...]] = {generator_name(params): ("generator",)}
    for role, spec in named:
        for name in cards_of(spec):
            roles[name] = (*roles.get(name, ()), role)
    return roles


def _model(name: str, card: Card, roles: Sequence[str], models: Path) -> PlannedModel:
    pins = read_pins(models)
    files = [_file(file, pins.get(f"{name}/{file.file}"), models / name) for file in card.files]
    return PlannedModel(name, tuple(roles), card.licence, tuple(files), card.cost)


def _file(wanted: CardFile, pin: Pin | None, folder: Path) -> PlannedFile:
    source = "card" if wanted.sha256 else "models.lock" if pin else None
    known = wanted if wanted.sha256 or pin is None else pin
    return PlannedFile(wanted.file, known.size, known.sha256, source, (folder / wanted.file).is_file())


def _dump(model: Any) -> Any:
    return None if model is None else model.model_dump(mode="json")


def _plain(value: Any) -> Any:
    """Return dataclasses, inside mappings as well, as plain dicts."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
