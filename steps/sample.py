"""Draw samples of a pass and label them: the basis of all figures and pictures of the pass."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "sample")

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from promptgen.config.build import build_embedder, build_features, identities
from promptgen.config.draws import SWEEP_ROWS, SWEEP_STEPS, measuring
from promptgen.energies.base import Sample
from promptgen.energies.pose import PoseEnergy
from promptgen.files import atomic_write
from promptgen.flows.sampling import condition_blocks, generate, sweep
from promptgen.generators.base import conditioned_images
from promptgen.metrics.features import image_features
from promptgen.metrics.sizes import PAIRS
from promptgen.networks.finite import require_finite
from promptgen.tracking import Tracker
from steps.measuring.reading import Block, Part, Reading, blocks, read, reading_inputs, reading_params, shown
from steps.shared.common import Pass, Result
from steps.shared.manifest import StepFolder
from steps.shared.recipes import PassRecipe

GRID_NAME = "grid.png"
SWEEP_NAME = "sweep.png"
STREAM = "evaluate"
Sheet = Literal["tiles", "sweep"]
"""Sheets of pictures in addition to the samples, by the name of their array."""
LARGEST_TILE = 256
"""Larger pictures are shrunk to this many pixels before they go into the grid."""


def run(run_pass: Pass, tracker: Tracker) -> Result:
    """Write samples (labels, probabilities, embeddings: no pictures) and grid.png (the same noise in every pass).

    The columns of the `Samples`, for N of them, are `READER.ATTRIBUTE`, class indices (N,), for each reader
    (classifier, judge, and truth where the generator knows it); `probability.READER`, the probabilities of the
    attribute to de-bias by classifier and judge, (N, K); `identity`, unit embeddings (N, E), if the experiment has an
    identity network; and `features`, (N, D), if it has a feature network. The sheet `tiles` holds the pictures of the
    grid, (n, H, W, 3).

    An experiment with a condition also has `condition`, the condition of each sample, (N, C), which the generator alone
    ignores; and `pose`, the estimated rotations, (N, 3, 3), if an energy reads poses. Passes with a flow also have
    `identity_again`, embeddings of the first samples' latents under other conditions, and the sheet `sweep`, latents
    under conditions that cover their ranges, (rows, columns, H, W, 3), which becomes sweep.png.

    Raises:
        DataError: the flow of this pass is not trained yet.
        ModelFileError: a weight file is missing or damaged.
    """
    evaluation, control = run_pass.params.evaluation, run_pass.params.control
    pose = control.pose if control else None
    networks = {"identity": evaluation.identity, "features": evaluation.features, "pose": pose}
    readers = {name: spec for name, spec in networks.items() if spec}
    params = {
        **reading_params(run_pass),
        "grid_seed": run_pass.params.seed,
        "networks": {name: spec.model_dump() for name, spec in readers.items()},
        "grid": evaluation.grid,
    }
    inputs = reading_inputs(run_pass) | identities(readers.values(), run_pass.project.models)
    return run_pass.step("sample", params, inputs, lambda folder: _sample(run_pass, folder, tracker))


def _sample(run_pass: Pass, folder: StepFolder, tracker: Tracker) -> Result:
    draws = measuring(run_pass.params, run_pass.number)
    sheets: list[Sheet] = ["tiles", "sweep"] if "sweep" in draws else ["tiles"]
    samples, images = read(SamplingRecipe(run_pass), [*blocks(run_pass, STREAM), *sheets], folder.path, tracker)
    pictures = samples.pictures()
    atomic_write(folder.path / GRID_NAME, _png(_grid(pictures["tiles"])))
    if "sweep" in sheets:
        atomic_write(folder.path / SWEEP_NAME, _png(_sheet(pictures["sweep"])))
    return {"n": len(samples), "generator_evaluations": {"forward": images, "backward": 0}}


@dataclass(frozen=True)
class SamplingRecipe(PassRecipe[Block | Sheet, Part]):
    """Builds the reader of the samples and the sheets of a pass."""

    def inputs(self) -> Mapping[str, str]:
        """Return the sha256 of the flows."""
        return self.run_pass.generator_inputs()

    def build(self) -> Callable[[Block | Sheet], Part]:
        """Return the generator and all networks that see the samples."""
        reading = _Reading(self.run_pass)
        return lambda shard: reading(shard) if isinstance(shard, Block) else reading.sheet(shard)


class _Reading(Reading):
    """Reads samples with classifier and judge, and with the networks for identity, features and pose."""

    def __init__(self, run_pass: Pass) -> None:
        super().__init__(run_pass)
        models, evaluation = run_pass.project.models, run_pass.params.evaluation
        self.others = _conditions(run_pass, "evaluate again", 0, min(PAIRS, evaluation.samples))
        pose = run_pass.params.control.pose if run_pass.params.control else None
        placed, names = run_pass.project.placed, run_pass.params.condition.names
        self.pose: PoseEnergy | None = placed(pose.build(models, names)) if pose else None
        self.embedder = placed(build_embedder(evaluation.identity, models)) if evaluation.identity else None
        self.features = placed(build_features(evaluation.features, models)) if evaluation.features else None

    def __call__(self, block: Block) -> Part:
        """Draw and read a block."""
        part = super().__call__(block)
        if self.run_pass.params.condition:
            part.arrays["condition"] = _conditions(self.run_pass, STREAM, block.start, block.stop).float().numpy()
        return part

    @torch.inference_mode()
    def sheet(self, name: Sheet) -> Part:
        """Draw the grid, or the sweep: a latent per row, the same in every pass, a condition per column."""
        run_pass, batch = self.run_pass, self.run_pass.params.evaluation.batch
        # Drawn under the experiment's seed, so that each picture can be followed through the passes.
        seed, stream = run_pass.params.seed, "grid"
        if name == "tiles":
            grid = measuring(run_pass.params, run_pass.number)["grid"].images
            pictures = generate(self.generator, grid, seed=seed, stream=stream, batch=batch)
            return Part({name: np.concatenate([tiles_of(image) for _, image in pictures])}, images=grid)
        images, _ = sweep(self.generator, SWEEP_ROWS, seed=seed, stream=stream, steps=SWEEP_STEPS, batch=batch)
        tiles = tiles_of(images.flatten(0, 1))
        return Part({name: tiles.reshape(*images.shape[:2], *tiles.shape[1:])}, images=len(tiles))

    def add(self, sample: Sample) -> None:
        """Read one batch."""
        image = shown(sample.image, self.n)
        if self.embedder is not None:
            self._batches["identity"].append(self._identity(image))
            if sample.context is not None and self.n < PAIRS:
                self._batches["identity_again"].append(self._identity(self._again(sample)))
        if self.features is not None:
            self._batches["features"] += image_features(self.features, [image], self.n)
        if self.pose is not None:
            self._batches["pose"].append(require_finite(self.pose.rotations(image), "the poses seen", self.n).cpu())
        super().add(sample)

    def _identity(self, image: Tensor) -> Tensor:
        """Return the embeddings, (B, E) float16 on the CPU, of the next batch."""
        assert self.embedder is not None
        return require_finite(self.embedder(image).half(), "the identity network's embeddings", self.n).cpu()

    def _again(self, sample: Sample) -> Tensor:
        """Return the images, (B, 3, H, W), of the next batch's latents under other conditions than the sample's."""
        latent = sample.latent[: PAIRS - self.n]
        self.images += len(latent)
        others = self.others[self.n : self.n + len(latent)].to(latent)
        return shown(conditioned_images(self.generator, latent, others), self.n)


def _conditions(run_pass: Pass, stream_name: str, start: int, stop: int) -> Tensor:
    """Return the condition of each of these samples in that stream, (N, C)."""
    return torch.cat(list(condition_blocks(run_pass.params.condition, stop, run_pass.seed, stream_name, start=start)))


def tiles_of(image: Tensor) -> NDArray[np.uint8]:
    """Return pictures, (B, H, W, 3) uint8, of images (B, 3, H, W) in [0, 1], no larger than LARGEST_TILE.

    Raises:
        DataError: an image has a NaN or an infinite number.
    """
    image = shown(image, 0)
    shrink = max(image.shape[2:]) / LARGEST_TILE
    if shrink > 1:
        image = torch.nn.functional.interpolate(image, scale_factor=1 / shrink, mode="area")
    return (image * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _grid(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return tiles, (n, H, W, 3), as one picture about twice as wide as high."""
    columns = math.ceil(math.sqrt(2 * len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    cells = np.full((rows * columns, *tiles.shape[1:]), 255, dtype=np.uint8)
    cells[: len(tiles)] = tiles
    return _sheet(cells.reshape(rows, columns, *tiles.shape[1:]))


def _sheet(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return rows and columns of tiles, (rows, columns, H, W, 3), as one picture."""
    rows, columns, height, width, _ = tiles.shape
    return tiles.swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
