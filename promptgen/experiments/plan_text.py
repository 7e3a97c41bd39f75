"""A plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from promptgen.config.energies import ClipTextSpec
from promptgen.evaluations.config import ReuseConfig
from promptgen.experiments.plan import Estimate, Plan, PlannedFile, PlannedModel, PlannedPass
from promptgen.flows.config import TrainingConfig
from promptgen.words import listing


def plan_text(plan: Plan) -> str:
    """Return the plan in words and tables."""
    lines = [
        f"{plan.params.experiment}{f': {plan.about}' if plan.about else ''}",
        "A plan: nothing is fetched, built or written. Counts are the most that are needed; memory and arithmetic are "
        "estimates.",
        *_section("Generator", _generator(plan)),
        *_section("Models", (line for model in plan.models for line in _model(model))),
        *_section("Passes", (line for planned in plan.passes for line in _pass(plan, planned))),
        *_section("Images, all passes", _images(plan)),
        *_section("Estimates, in 32-bit numbers", _estimates(plan)),
    ]
    return "\n".join(lines)


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)]


def _generator(plan: Plan) -> Iterator[str]:
    def words(value: object) -> str:
        return " ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else str(value)

    params, shape = plan.params, plan.shape
    settings = [f"{key} {words(value)}" for key, value in params.generator.settings().items()]
    if shape is None:
        yield ", ".join([params.generator.name, "image and latent known once it is built", *settings])
        return
    parts = " + ".join(f"{size} ({name})" for name, size in shape.latent.items())
    latent = parts if len(shape.latent) > 1 else shape.dim
    size = f"{shape.width} x {shape.image_size} pixels"
    yield ", ".join([params.generator.name, size, f"latent of {latent} numbers", *settings])
    for kind, parameters in (plan.flow_parameters or {}).items():
        flow, condition = params.flow, list(params.condition.names) if kind == "control" else []
        parts = f", one each for {' + '.join(map(str, flow.parts))} numbers" if flow.parts else ""
        context = f", given {listing(condition)}" if condition else ""
        yield f"flow of a {kind} pass: {flow.blocks} blocks{parts}{context}: {parameters:,} parameters"


def _model(model: PlannedModel) -> Iterator[str]:
    yield f"{model.name}: {', '.join(model.roles)}"
    yield f"    licence: {model.licence}"
    for file in model.files:
        yield f"    {file.file}: {_state(file)}"
    if not model.files:
        yield "    random weights, no file"


def _state(file: PlannedFile) -> str:
    fetched = "fetched" if file.is_there else f"not fetched ({file.source or 'no direct link'})"
    if file.sha256 is None:
        return f"{fetched}; size and sha256 are not known until it is fetched"
    size = f"{file.size / 1e6:,.1f} MB, " if file.size else ""
    return f"{fetched}; {size}sha256 {file.sha256} (from {file.known_from})"


def _pass(plan: Plan, planned: PlannedPass) -> Iterator[str]:
    yield f"{planned.number}  {_goal(plan, planned)}"
    if training := planned.training:
        yield f"     {_training(training)}"
    for purpose, usage in planned.usage.items():
        images = usage[plan.params.generator.name]
        gradient = f", {images.backward:,} with gradient" if images.backward else ""
        yield f"     {purpose}: {images.forward:,} images{gradient}"


def _training(training: ReuseConfig | TrainingConfig) -> str:
    if isinstance(training, ReuseConfig):
        images, minutes = training.budget.images, training.budget.minutes
        most = f"{images:,} images; one with gradient counts as three" if images else f"{minutes:g} minutes of images"
        return f"evaluations are kept and used again, at most {most}; {training.at_once} at a time"
    parts = f", {training.at_once} at a time" if training.at_once != training.batch else ""
    return f"{training.steps:,} optimiser steps x {training.batch} samples{parts}"


def _goal(plan: Plan, planned: PlannedPass) -> str:
    params, debias = plan.params, plan.params.debias
    if planned.kind == "generator":
        return "the generator as it is, measured"
    if planned.kind == "control" and params.control:
        energies = params.control.energies.items()
        return f"control: {'; '.join(f'{spec.asks_for(name)}, weight {spec.weight:g}' for name, spec in energies)}"
    if params.only_fits:
        return f"multipliers for {debias.attribute}, without a flow"
    optional = " (at the most)" if planned.number > params.first_debias_pass else ""
    return f"de-bias {debias.attribute}{optional}: moment energy, weight {debias.weight:g}"


def _images(plan: Plan) -> Iterator[str]:
    width = max(map(len, plan.images))
    yield f"{'':{width}}  {'in all':>12}  {'with gradient':>13}"
    for name, images in plan.images.items():
        yield f"{name:{width}}  {images.forward:>12,}  {images.backward:>13,}"
    energies = plan.params.control.energies.values() if plan.params.control else ()
    texts = [part for energy in energies for part in energy.simple() if isinstance(part, ClipTextSpec)]
    if copies := sorted({text.augmentations for text in texts if text.augmentations}):
        numbers = listing([str(number) for number in copies])
        yield f"CLIP sees {numbers} augmented copies of each image; all are counted here."


def _estimates(plan: Plan) -> Iterator[str]:
    yield f"arithmetic: {_bounded(plan.giga_macs, _work)}"
    for planned in {planned.kind: planned for planned in plan.passes}.values():  # those of one kind are alike
        if planned.training_mib:
            training = f"training a {planned.kind} pass, {planned.micro_batch} at a time"
            yield f"memory, {training}: {_bounded(planned.training_mib, _memory)}"
    measuring = max((planned.measuring_mib for planned in plan.passes), key=lambda estimate: estimate.value)
    yield f"memory, measuring, {plan.params.evaluation.batch} at a time: {_bounded(measuring, _memory)}"
    yield "Memory is that of all weights, and of each image as measured on a CPU; control.training.micro_batch,"
    yield "debias.training.micro_batch and evaluation.batch change it."


def _bounded(estimate: Estimate, formatted: Callable[[float], str]) -> str:
    if estimate.unmeasured:
        least = f"at least {formatted(estimate.value)}" if estimate.value else "not known"
        return f"{least}; the cost of {listing(list(estimate.unmeasured))} is not measured"
    return f"about {formatted(estimate.value)}"


def _work(giga_macs: float) -> str:
    digits, _, power = f"{giga_macs * 1e9:.1e}".partition("e+")
    return f"{digits} x 10^{int(power)} multiply-accumulates"


def _memory(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
