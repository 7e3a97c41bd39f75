"""What it costs to augment before resizing, and what it changes: run by hand, the tables are in docs/energies.md.

    python -m tests.measure_resize cost     seconds and memory of a text's energy with its gradient, one image
    python -m tests.measure_resize change   how far the energies of both orders are apart

It needs Linux, 10 GB of memory and, on one thread, most of an hour.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from promptgen.config.build import load_model, random_model
from promptgen.energies.augment import Draws, augment, draw
from promptgen.energies.base import Sample
from promptgen.energies.clip import ClipText
from promptgen.experiments.costs import Subject, best_seconds, peak_in_fresh_process
from promptgen.generators.stylegan2.generator import random_stylegan2
from promptgen.model_files.store import fetch
from promptgen.perception.clip import ClipModel, fit
from promptgen.seeding import stream

SIDES = (256, 512, 1024)
TEXT = "a person with glasses"
CLIPS = ("world-clip", "clip-vit-b-32")
IMAGES = 16
COPIES = {"world-clip": 16, "clip-vit-b-32": 4}


@cache
def clip(name: str) -> ClipModel:
    """Return the world's CLIP as it is shipped, or a published one with random weights."""
    if name != "world-clip":
        return random_model(name, Path("models"), "clip")
    with tempfile.TemporaryDirectory() as folder:
        return shipped(name, "clip", Path(folder))


def shipped(name: str, kind: str, models: Path) -> torch.nn.Module:
    fetch(name, models)
    return load_model(name, models, kind)


def energy_of(name: str, side: int, copies: int, resize_first: bool) -> Subject:
    """Return the energy of a text, to be measured on one image of a side."""
    energy = ClipText({name: (clip(name), 1.0)}, TEXT, augmentations=copies, resize_first=resize_first)
    image = torch.rand(1, 3, side, side, generator=stream(0, "image"))
    return Subject(energy, lambda given: energy(Sample(torch.zeros(1, 2), given)), image)


def work(name: str, side: int, copies: int, resize_first: bool) -> partial:
    return partial(energy_of(name, side, copies, resize_first).run, gradient=True)


def cost_rows() -> Iterator[str]:
    yield "| CLIP | image | copies | resize first: s | MiB | augment first: s | MiB |"
    yield "|---|---|---|---|---|---|---|"
    for name in CLIPS:
        for side in SIDES:
            for copies in (4, 50) if name == "world-clip" else (4,):
                cells = []
                for resize_first in (True, False):
                    arguments = name, side, copies, resize_first
                    cells.append(f"{best_seconds(energy_of(*arguments), gradient=True, repeats=2):.2f}")
                    cells.append(f"{peak_in_fresh_process(work, *arguments):.0f}")
                yield f"| {name} | {side} | {copies} | {' | '.join(cells)} |"


def pictures(kind: str, side: int) -> Tensor:
    """Return images, (IMAGES, 3, side, side): heads of the world, enlarged, or the noise of a random StyleGAN2."""
    rng = stream(0, "pictures")
    with torch.inference_mode():
        if kind == "noise":
            generator = random_stylegan2(side)
            return torch.cat([generator(latent) for latent in generator.prior.sample(IMAGES, rng).split(1)])
        with tempfile.TemporaryDirectory() as folder:
            generator = shipped("world-generator", "generator", Path(folder))
        heads = generator(generator.prior.sample(IMAGES, rng))
        return functional.interpolate(heads, (side, side), mode="bicubic")


def scaled(draws: Draws, factor: float) -> Draws:
    """Return the same augmentations for images whose side is `factor` times as large."""
    lengths = ("rows", "columns", "cutout_rows", "cutout_columns")
    return replace(draws, **{name: (getattr(draws, name) * factor).round().long() for name in lengths})


def energies(name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the energies of every augmented copy, (IMAGES, L), in both orders, with the same augmentations."""
    model, rng = clip(name), stream(0, "augmentations")
    target, size = model.text_features([TEXT])[0], model.image_size
    found = []
    with torch.inference_mode():
        for image in images.split(1):
            draws = draw(1, COPIES[name], size, rng)
            orders = ((fit(image, size, antialias=True), draws), (image, scaled(draws, image.shape[2] / size)))
            found.append([1 - model.image_features(augment(*order)) @ target for order in orders])
    first, original = (torch.stack(part).double() for part in zip(*found, strict=True))
    return first, original


def change_rows() -> Iterator[str]:
    yield "| CLIP | images | side | mean difference | its spread | spread over copies | over images | correlation |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in CLIPS:
        for kind in ("heads", "noise"):
            for side in SIDES:
                first, original = energies(name, pictures(kind, side))
                means = torch.stack([first.mean(dim=1), original.mean(dim=1)])
                difference = means[0] - means[1]
                numbers = (
                    *(difference.mean(), difference.std(), original.std(dim=1).mean(), means[1].std()),
                    torch.corrcoef(means)[0, 1],
                )
                yield f"| {name} | {kind} | {side} | {' | '.join(f'{number:.4f}' for number in numbers)} |"


if __name__ == "__main__":
    for row in {"cost": cost_rows, "change": change_rows}[sys.argv[1]]():
        print(row, flush=True)
