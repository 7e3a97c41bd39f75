"""A plan as text to read in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from textwrap import wrap

from promptgen.config.specs import ClassifierSpec, ClipTextSpec, EnergySpec
from promptgen.experiments.plan import Estimate, Plan, PlannedFile, PlannedModel, PlannedPass
from promptgen.reporting.text.formats import class_name, listing

WIDTH = 100


def plan_text(plan: Plan) -> str:
    """Return the plan in words and tables."""
    lines = [
        f"{plan.params.experiment}{f': {plan.about}' if plan.about else ''}",
        "A plan: nothing is fetched, built or written. Counts are exact; memory and arithmetic are estimates.",
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
    options = plan.params.generator.model_dump(exclude={"type", "model", "weights", "arguments", "factory"})
    chosen = [f"{key} {_option(value)}" for key, value in options.items() if value is not None]
    shape = plan.shape
    if shape is None:
        yield ", ".join([plan.generator, "image and latent known once it is built", *chosen])
        return
    parts = " + ".join(f"{size} ({name})" for name, size in shape.latent.items())
    latent = parts if len(shape.latent) > 1 else shape.dim
    size = f"{shape.image_size} x {shape.image_size} pixels"
    yield ", ".join([plan.generator, size, f"latent of {latent} numbers", *chosen])
    for kind, parameters in (plan.flow_parameters or {}).items():
        yield f"flow of a {kind} pass: {_flow(plan, kind)}: {parameters:,} parameters"


def _option(value: object) -> str:
    return " ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else str(value)


def _flow(plan: Plan, kind: str) -> str:
    flow, told = plan.params.flow, plan.params.condition.names if kind == "control" else ()
    parts = f", one each for {' + '.join(map(str, flow.parts))} numbers" if flow.parts else ""
    return f"{flow.blocks} blocks{parts}{f', told {listing(list(told))}' if told else ''}"


def _model(model: PlannedModel) -> Iterator[str]:
    yield f"{model.name}: {', '.join(model.roles)}"
    yield f"    licence: {model.licence}"
    for file in model.files:
        yield f"    {_file(file)}"
    if not model.files:
        yield "    random weights, no file"


def _file(file: PlannedFile) -> str:
    there = "fetched" if file.is_there else "not fetched"
    if file.sha256 is None:
        return f"{file.file}: {there}; size and sha256 are not known until it is fetched"
    size = f"{file.size / 1e6:,.1f} MB, " if file.size else ""
    return f"{file.file}: {there}; {size}sha256 {file.sha256} (from {file.known_from})"


def _pass(plan: Plan, planned: PlannedPass) -> Iterator[str]:
    yield f"{planned.number}  {_goal(plan, planned)}"
    if planned.training:
        training, size = planned.training, planned.micro_batch
        parts = f", {size} at a time" if size != training.batch else ""
        yield f"     {training.steps:,} optimiser steps x {training.batch} samples{parts}"
    for what, usage in planned.usage.items():
        made = usage[plan.generator]
        gradient = f", {made.backward:,} with gradient" if made.backward else ""
        yield f"     {what}: {made.forward:,} images{gradient}"


def _goal(plan: Plan, planned: PlannedPass) -> str:
    params = plan.params
    if planned.kind == "generator":
        return "the generator as it is, measured"
    if planned.kind == "control" and params.control:
        wanted = [f"{_energy(name, spec)}, weight {spec.weight:g}" for name, spec in params.control.energies.items()]
        return f"control: {'; '.join(wanted)}"
    debias = params.debias
    if params.only_fits:
        return f"multipliers for {debias.attribute}, without a flow"
    optional = " (at the most)" if planned.number > params.first_debias_pass else ""
    return f"de-bias {debias.attribute}{optional}: moment energy, weight {debias.weight:g}"


def _energy(name: str, spec: EnergySpec) -> str:
    if isinstance(spec, ClipTextSpec):
        return f'"{spec.text}"'
    if isinstance(spec, ClassifierSpec):
        return " and ".join(class_name(attribute, label) for attribute, label in spec.labels.items())
    return name


def _images(plan: Plan) -> Iterator[str]:
    images = plan.images
    width = max(map(len, images))
    yield f"{'':{width}}  {'in all':>12}  {'with gradient':>13}"
    for name, each in images.items():
        yield f"{name:{width}}  {each.forward:>12,}  {each.backward:>13,}"
    copies = sorted({spec.augmentations for spec in _texts(plan) if spec.augmentations})
    if copies:
        seen = listing([str(number) for number in copies])
        yield f"CLIP sees {seen} augmented copies of each image; all are counted here."


def _texts(plan: Plan) -> Sequence[ClipTextSpec]:
    energies = plan.params.control.energies.values() if plan.params.control else ()
    return [spec for spec in energies if isinstance(spec, ClipTextSpec)]


def _estimates(plan: Plan) -> Iterator[str]:
    yield f"arithmetic: {_bounded(plan.giga_macs, _work)}"
    for planned in {planned.kind: planned for planned in plan.passes}.values():  # those of one kind are alike
        if planned.training_mib:
            what = f"training a {planned.kind} pass, {planned.micro_batch} at a time"
            yield f"memory, {what}: {_bounded(planned.training_mib, _memory)}"
    measuring = max((planned.measuring_mib for planned in plan.passes), key=lambda estimate: estimate.value)
    yield f"memory, measuring, {plan.params.evaluation.batch} at a time: {_bounded(measuring, _memory)}"
    yield from wrap(
        "Memory is that of all weights, and for each image what one was measured to take on a CPU; "
        "control.training.micro_batch, debias.training.micro_batch and evaluation.batch change it.",
        WIDTH,
    )


def _bounded(estimate: Estimate, words: Callable[[float], str]) -> str:
    if estimate.unmeasured:
        known = f"at least {words(estimate.value)}" if estimate.value else "not known"
        return f"{known}; the cost of {listing(list(estimate.unmeasured))} is not measured"
    return f"about {words(estimate.value)}"


def _work(giga_macs: float) -> str:
    digits, _, power = f"{giga_macs * 1e9:.1e}".partition("e+")
    return f"{digits} x 10^{int(power)} multiply-accumulates"


def _memory(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
