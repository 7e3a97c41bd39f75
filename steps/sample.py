"""Draw samples of a pass and read their attributes: what all figures and pictures of the pass are made from."""

from __future__ import annotations

import io
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from promptgen.build import build_classifier, build_embedder, identities
from promptgen.files import atomic_write
from promptgen.generators.base import HasTruth
from promptgen.manifest import StepFolder
from promptgen.perception.labels import probabilities
from promptgen.sampling import generate
from promptgen.tracking import Tracker
from steps.common import Pass, Result, pass_command

SAMPLES_NAME = "samples.npz"
GRID_NAME = "grid.png"
LARGEST_TILE = 256
"""Larger pictures are shrunk to this many pixels before they go into the grid."""


def run(this: Pass, tracker: Tracker) -> Result:
    """Write samples.npz (labels, probabilities, embeddings: no pictures) and grid.png (the same noise in every pass).

    samples.npz holds, for N samples: `READER.ATTRIBUTE`, class indices (N,), for each reader (classifier, judge, and
    truth where the generator knows it); `probability`, the classifier's probabilities of the attribute to de-bias,
    (N, K); `identity`, unit embeddings (N, E), if the experiment has an identity network; `tiles`, the pictures of the
    grid, (n, H, W, 3); and `labels`, which labels each reader's attributes have, as JSON.

    Raises:
        DataError: the flow of this pass is not trained yet.
        ModelFileError: a weight file is missing or damaged.
    """
    debias, evaluation = this.params.debias, this.params.evaluation
    readers = [debias.classifier, debias.judge, *([evaluation.identity] if evaluation.identity else [])]
    params = {
        "seeds": [this.params.seed, this.seed],
        "generator": this.params.generator.model_dump(),
        "readers": [reader.model_dump() for reader in readers],
        "attribute": debias.attribute,
        **evaluation.model_dump(include={"samples", "batch", "grid"}),
    }
    inputs = this.generator_inputs() | identities(readers, this.project.models)
    return this.step("sample", params, inputs, lambda folder: _sample(this, folder, tracker))


@torch.inference_mode()
def _sample(this: Pass, folder: StepFolder, tracker: Tracker) -> Result:
    evaluation, generator = this.params.evaluation, this.generator()
    reading = _Reading(this, generator)
    for latent, image in generate(
        generator, evaluation.samples, seed=this.seed, stream="evaluate", batch=evaluation.batch
    ):
        reading.add(latent, image.clamp(0, 1))  # as a viewer sees it
        tracker.progress(reading.n, evaluation.samples, "samples")
    # The grid alone is drawn under the experiment's seed, so that each picture can be followed through the passes.
    pictures = generate(generator, evaluation.grid, seed=this.params.seed, stream="grid", batch=evaluation.batch)
    tiles = np.concatenate([tiles_of(image) for _, image in pictures])
    atomic_write(folder.path / SAMPLES_NAME, _npz({**reading.arrays(), "tiles": tiles}))
    atomic_write(folder.path / GRID_NAME, _png(tiles))
    evaluations = {"forward": evaluation.samples + evaluation.grid, "backward": 0}
    return {"n": reading.n, "generator_evaluations": evaluations}


class _Reading:
    """What the readers say about samples that come in batches."""

    def __init__(self, this: Pass, generator: Any) -> None:
        debias, models = this.params.debias, this.project.models
        self.classifier = build_classifier(debias.classifier, models)
        self.judge = build_classifier(debias.judge, models)
        identity = this.params.evaluation.identity
        self.embedder = build_embedder(identity, models) if identity else None
        self.attribute = debias.attribute
        self.truth = generator.truth if isinstance(generator, HasTruth) else None
        self.attributes: dict[str, dict[str, list[str]]] = {
            "classifier": _plain(self.classifier.attributes),
            "judge": _plain(self.judge.attributes),
        }
        self.n = 0
        self._batches: defaultdict[str, list[Tensor]] = defaultdict(list)

    def add(self, latent: Tensor, image: Tensor) -> None:
        """Read one batch."""
        self.n += len(latent)
        logits = self.classifier(image)
        self._keep("classifier", {name: part.argmax(dim=1) for name, part in logits.items()})
        self._keep("judge", {name: part.argmax(dim=1) for name, part in self.judge(image).items()})
        self._batches["probability"].append(probabilities(logits, self.attribute))
        if self.truth is not None:
            self._keep("truth", self.truth(latent))
        if self.embedder is not None:
            self._batches["identity"].append(self.embedder(image).half())

    def _keep(self, reader: str, labels: Mapping[str, Tensor]) -> None:
        for name, indices in labels.items():
            self._batches[f"{reader}.{name}"].append(indices.to(torch.int16))
        if reader == "truth":  # which has no labels of its own: its classes are in the classifier's order
            known = self.attributes["classifier"]
            self.attributes["truth"] = {name: known[name] for name in labels if name in known}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that was read, by name."""
        arrays = {name: torch.cat(batches).numpy() for name, batches in self._batches.items()}
        return {**arrays, "labels": np.array(json.dumps(self.attributes))}


def load_samples(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, dict[str, list[str]]]]:
    """Return the arrays of a folder that this step has written, and the labels of each attribute by reader."""
    with np.load(folder / SAMPLES_NAME, allow_pickle=False) as archive:
        arrays = dict(archive)
    return arrays, json.loads(str(arrays.pop("labels")))


def tiles_of(image: Tensor) -> NDArray[np.uint8]:
    """Return pictures, (B, H, W, 3) uint8, of images (B, 3, H, W) in [0, 1], no larger than LARGEST_TILE."""
    shrink = max(image.shape[2:]) / LARGEST_TILE
    if shrink > 1:
        image = torch.nn.functional.interpolate(image, scale_factor=1 / shrink, mode="area")
    return (image.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _plain(attributes: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {name: list(labels) for name, labels in attributes.items()}


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _png(tiles: NDArray[np.uint8]) -> bytes:
    """Return the tiles as one picture, about twice as wide as high."""
    columns = math.ceil(math.sqrt(2 * len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    _, height, width, _ = tiles.shape
    cells = np.full((rows * columns, height, width, 3), 255, dtype=np.uint8)
    cells[: len(tiles)] = tiles
    sheet = cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    pass_command(__doc__, run)
