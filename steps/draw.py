"""Draw images from a pass into a folder: as its flow makes them, or corrected to follow its energies exactly."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("draw")

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptgen.engine.base import in_order
from promptgen.errors import ConfigError
from promptgen.flows.exact import Correction, Method, correct
from promptgen.generators.base import Generator, condition_of
from promptgen.progress import Bar
from promptgen.seeding import stream
from promptgen.tracking import Tracker
from steps.drawing.gallery import Gallery
from steps.drawing.pictures import STREAM, Drawing, DrawingRecipe, Drawn, chosen, plain, proposals
from steps.drawing.purpose import check_purpose
from steps.shared.common import Pass

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


def run(run_pass: Pass, request: Request, tracker: Tracker) -> dict[str, Any]:
    """Write images as NUMBER.png, then summary.json and samples.csv, which has a row per image; return the summary.

    Each file is written atomically, and samples.csv last: if it exists, all images do. The same request
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
    recipe = DrawingRecipe(run_pass, request.seed, dict(request.condition), bool(request.exact), request.labels)
    drawing, batch = recipe.build(), run_pass.params.evaluation.batch
    _check_condition(drawing.generator, request)
    gallery = Gallery(request.out, request.n)
    correction, shards = None, plain(request.n, batch)
    if request.exact:
        log_weights = _log_weights(recipe, drawing, request, tracker)
        correction = correct(log_weights, request.n, request.exact, stream(request.seed, STREAM, request.exact))
        shards = chosen(correction.chosen, log_weights, batch)
    for number, drawn in run_pass.project.engine.map(recipe, shards, function=drawing):
        assert isinstance(drawn, Drawn)
        gallery.add(shards[number].first, drawn.files, drawn.columns)
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


def _log_weights(recipe: DrawingRecipe, drawing: Drawing, request: Request, tracker: Tracker) -> Tensor:
    """Return the log weights, nats, (M,), of the proposals that exact samples are chosen from."""
    m = request.proposals or max(LEAST_PROPOSALS, PROPOSALS_PER_SAMPLE * request.n)
    parts, done = list[Tensor](), 0
    for part in in_order(recipe.run_pass.project.engine.map(recipe, proposals(m), function=drawing)):
        assert isinstance(part, Tensor)
        parts.append(part)
        done += len(part)
        tracker.progress(done, m, "proposals")
    return torch.cat(parts)


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
    """Draw images with a progress bar, then print how exact they are and where they are."""
    with Bar() as bar:
        summary = run(run_pass, request, bar)
    if summary["exact"]:
        print(described(summary["exact"]))
        for doubt in summary["exact"]["doubts"]:
            logger.warning("%s", doubt)
    print(f"{request.out}: {request.n} images")
