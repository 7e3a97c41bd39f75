"""Draw images from a pass into a folder: as its flow gives them, or exactly as its energies ask."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("draw")

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptgen.config.build import build_classifier
from promptgen.energies.base import Sample
from promptgen.errors import ConfigError
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.exact import Correction, Method, chain_log_weights, correct
from promptgen.flows.sampling import draw, latent_blocks
from promptgen.generators.base import Generator, condition_of, conditioned_images
from promptgen.labels import hard_labels
from promptgen.perception.base import Classifier
from promptgen.perception.reading import read_logits
from promptgen.progress import Bar
from promptgen.seeding import stream
from promptgen.tracking import Tracker
from steps.drawing.gallery import Gallery
from steps.drawing.purpose import check_purpose
from steps.measuring.reading import shown
from steps.shared.common import Pass
from steps.training.plan import trained_energy

STREAM = "draw"
LEAST_PROPOSALS, PROPOSALS_PER_SAMPLE = 1000, 10
"""Default number of proposals of exact sampling: so many per image, and at least that many."""

logger = logging.getLogger("promptgen")


@dataclass(frozen=True)
class Request:
    """What to draw.

    Attributes:
        n: number of images.
        out: folder for them; created if it does not exist.
        seed: the same seed gives the same noise in every pass.
        exact: how samples are corrected; None leaves them as the flow gives them.
        proposals: number of samples of the flow that exact ones are chosen from; None means ten per image, and at
            least `LEAST_PROPOSALS`.
        condition: values of coordinates of the condition by name, for all images.
        labels: whether the experiment's classifier and judge label the images.
    """

    n: int
    out: Path
    seed: int
    exact: Method | None = None
    proposals: int | None = None
    condition: Mapping[str, float] = field(default_factory=dict)
    labels: bool = False


@dataclass(frozen=True)
class _Batch:
    """Images, with the position of each in the stream of noise and its log weight if one was computed."""

    sample: Sample
    indices: list[int]
    log_weights: list[float] | None = None


def run(run_pass: Pass, request: Request, tracker: Tracker) -> dict[str, Any]:
    """Write images as NUMBER.png, then summary.json and samples.csv, which has a row per image; return the summary.

    Each file is written whole or not at all, and samples.csv last: if it exists, all images do. The same request
    writes the same bytes, so an interrupted one can be repeated.

    Raises:
        ConfigError: a number is not positive, there are fewer proposals than images, or exact samples are requested
            without an energy, without a full condition, or of a flow that was trained for another energy.
        DataError: the flow of this pass is not trained yet, a coordinate of the condition is unknown, or a pixel or a
            logit is NaN or infinite.
        ModelFileError: a weight file is missing or damaged.
        NonFiniteEnergyError: a log weight is not finite.
        StorageError: the folder holds other files, or cannot be written.
    """
    _check(run_pass, request)
    run_pass.generator_inputs()  # raises if the flow is not trained yet
    doubts = check_purpose(run_pass) if request.exact else []
    generator = run_pass.generator(sampling=True)
    _check_condition(generator, request)
    readers = _readers(run_pass) if request.labels else {}
    gallery = Gallery(request.out, request.n)
    if request.exact is None:
        batches, correction = _plain(run_pass, generator, request), None
    else:
        batches, correction = _exact(run_pass, generator, request, request.exact, tracker)
    for batch in batches:
        done = len(gallery.rows)
        image = shown(batch.sample.image, done)
        columns = _columns(batch, request.seed, condition_of(generator).names)
        gallery.add(image, columns | _labels(image, readers, done))
        tracker.progress(len(gallery.rows), request.n, "images")
    summary = _summary(run_pass, request, correction, doubts)
    gallery.finish(summary)
    return summary


def _check(run_pass: Pass, request: Request) -> None:
    if request.n < 1 or (request.proposals is not None and request.proposals < 1):
        raise ConfigError(
            f"the numbers of images and proposals must be positive, got {request.n} and {request.proposals}"
        )
    if request.proposals is not None and request.proposals < request.n:
        raise ConfigError(f"{request.n} images cannot be chosen from {request.proposals} proposals: draw more")
    if request.exact and run_pass.kind == "generator":
        raise ConfigError("pass 0 has no flow and no energy, so its samples are exact already: leave --exact out")


def _check_condition(generator: Generator, request: Request) -> None:
    """Refuse coordinates that the chain does not know, and for exact samples missing ones.

    A target is normalised for each condition on its own, and weights of different conditions do not compare.
    """
    condition = condition_of(generator)
    condition.fix(torch.zeros(1, len(condition)), request.condition)
    if request.exact and (missing := [name for name in condition.names if name not in request.condition]):
        raise ConfigError(f"exact samples need one full condition: add {' and '.join(missing)} to --condition")
    for name, value in request.condition.items():
        low, high = condition.ranges[name]
        if not low <= value <= high:
            logger.warning("%s = %g is outside %g to %g, for which the flow was trained", name, value, low, high)


def _readers(run_pass: Pass) -> dict[str, Classifier]:
    debias, models = run_pass.params.debias, run_pass.project.models
    placed = run_pass.project.placed
    return {name: placed(build_classifier(getattr(debias, name), models)) for name in ("classifier", "judge")}


def _plain(run_pass: Pass, generator: Generator, request: Request) -> Iterator[_Batch]:
    """Yield samples as the flow gives them."""
    batch, done = run_pass.params.evaluation.batch, 0
    for sample in draw(
        generator, request.n, seed=request.seed, stream=STREAM, batch=batch, condition=request.condition
    ):
        yield _Batch(sample, list(range(done, done + len(sample.latent))))
        done += len(sample.latent)


def _exact(
    run_pass: Pass, generator: Generator, request: Request, method: Method, tracker: Tracker
) -> tuple[Iterator[_Batch], Correction]:
    """Return samples chosen from proposals, the samples that `_plain` would yield, and how they were chosen."""
    assert isinstance(generator, ChainedGenerator)  # every pass but the first ends with a flow
    m = request.proposals or max(LEAST_PROPOSALS, PROPOSALS_PER_SAMPLE * request.n)
    latents = torch.cat(list(latent_blocks(generator.prior, m, request.seed, STREAM)))
    condition = condition_of(generator)
    context = condition.fix(torch.zeros(m, len(condition)), request.condition).to(latents) if condition else None
    batch = run_pass.params.evaluation.batch
    log_weights = chain_log_weights(
        generator,
        trained_energy(run_pass),
        latents,
        context,
        seed=request.seed,
        batch=batch,
        progress=lambda done: tracker.progress(done, m, "proposals"),
    )
    correction = correct(log_weights, request.n, method, stream(request.seed, STREAM, method))
    return _chosen(generator, latents, context, log_weights, torch.split(correction.chosen, batch)), correction


def _chosen(
    generator: Generator, latents: Tensor, context: Tensor | None, log_weights: Tensor, parts: tuple[Tensor, ...]
) -> Iterator[_Batch]:
    for part in parts:
        chosen_context = None if context is None else context[part]
        with torch.inference_mode():
            image = conditioned_images(generator, latents[part], chosen_context)
        yield _Batch(Sample(latents[part], image, chosen_context), part.tolist(), log_weights[part].tolist())


def _columns(batch: _Batch, seed: int, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return the columns of the table for a batch, without its labels."""
    columns: dict[str, list[Any]] = {"seed": [seed] * len(batch.indices), "index": batch.indices}
    if batch.sample.context is not None:
        for name, values in zip(names, batch.sample.context.T.tolist(), strict=True):
            columns[f"condition.{name}"] = [f"{value:.6g}" for value in values]
    if batch.log_weights is not None:
        columns["log_weight"] = [f"{value:.9g}" for value in batch.log_weights]
    return columns


def _labels(image: Tensor, readers: Mapping[str, Classifier], first: int) -> dict[str, list[str]]:
    """Return the label of each image by `READER.ATTRIBUTE`; `first` is the number of the first image."""
    labels = {}
    for reader, classifier in readers.items():
        with torch.inference_mode():
            logits = read_logits(classifier, image, f"the {reader}", first)
        for name, words in classifier.attributes.items():
            labels[f"{reader}.{name}"] = [words[index] for index in hard_labels(logits, name).tolist()]
    return labels


def _summary(run_pass: Pass, request: Request, correction: Correction | None, doubts: list[str]) -> dict[str, Any]:
    exact = correction and correction.as_dict()
    return {
        "experiment": run_pass.params.experiment,
        "pass": run_pass.number,
        "kind": run_pass.kind,
        "n": request.n,
        "seed": request.seed,
        "condition": dict(request.condition),
        "exact": exact and {**exact, "doubts": [*doubts, *exact["doubts"]]},
    }


def described(correction: Mapping[str, Any]) -> str:
    """Return the figures of exact sampling in summary.json as a line of text."""
    fit, accepted = correction["fit"], correction["acceptance"]
    tail = "none" if fit["tail_index"] is None else f"{fit['tail_index']:.2f}"
    parts = [
        f"{correction['method']}: {correction['distinct']} different samples of {fit['n']} proposals",
        *([] if accepted is None else [f"{100 * accepted:.0f} % accepted"]),
        f"effective sample size {correction['effective']:.0f}",
        f"tail index {tail}, weights {fit['trust']}",
    ]
    return ", ".join(parts)


def run_and_print(run_pass: Pass, request: Request) -> None:
    """Draw images with a progress bar, then print how exact they are and where they lie."""
    with Bar() as bar:
        summary = run(run_pass, request, bar)
    if summary["exact"]:
        print(described(summary["exact"]))
        for doubt in summary["exact"]["doubts"]:
            logger.warning("%s", doubt)
    print(f"{request.out}: {request.n} images")
