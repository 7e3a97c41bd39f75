"""Pictures of a pass, which an engine makes in shards: images by their numbers in the stream of noise, and weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from promptgen.energies.base import Energy
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.exact import chain_log_weights
from promptgen.flows.sampling import BLOCK, condition_blocks, latent_blocks
from promptgen.generators.base import condition_of, conditioned_images
from promptgen.labels import hard_labels
from promptgen.perception.base import Classifier
from promptgen.perception.reading import read_logits
from promptgen.reporting.drawing.pictures import png
from promptgen.seeding import derive
from steps.measuring.reading import shown
from steps.shared.recipes import PassRecipe
from steps.training.diversity import fitted_inputs
from steps.training.plan import plan_of, trained_energy

STREAM = "draw"


@dataclass(frozen=True)
class Proposals:
    """Samples of the flow that are weighted: a block of the stream of noise, or the first part of one.

    Attributes:
        start: number of the first one, a multiple of `BLOCK`.
        stop: number after the last one.
    """

    start: int
    stop: int


@dataclass(frozen=True)
class Pictures:
    """Pictures of one shard.

    Attributes:
        first: position of the first one among all that are drawn.
        numbers: number of each in the stream of noise.
        log_weights: log weight of each, nats; empty if they have none.
    """

    first: int
    numbers: tuple[int, ...]
    log_weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """The files and table columns of `Pictures`.

    Attributes:
        files: content of their PNG files.
        columns: columns of the table by name, one value per picture.
    """

    files: list[bytes]
    columns: dict[str, list[Any]]


@dataclass(frozen=True)
class DrawingRecipe(PassRecipe[Proposals | Pictures, Tensor | Drawn]):
    """Builds a `Drawing` of a pass.

    Attributes:
        seed: seed of the noise.
        condition: values of coordinates of the condition by name, for all pictures.
        exact: whether samples are weighted.
        labels: whether classifier and judge label the pictures.
    """

    seed: int
    condition: Mapping[str, float]
    exact: bool
    labels: bool

    def inputs(self) -> Mapping[str, str]:
        """Return the sha256 of the flows, and of what the energy depends on if samples are weighted."""
        energy = {**plan_of(self.run_pass).inputs, **fitted_inputs(self.run_pass)} if self.exact else {}
        return {**self.run_pass.generator_inputs(), **energy}

    def build(self) -> Drawing:
        """Return the generator; other networks are loaded when they are needed."""
        return Drawing(self)


class Drawing:
    """Makes pictures, and weights of proposals, (N,), in nats.

    Args:
        recipe: what to draw.

    Raises:
        ModelFileError: a weight file is missing or damaged.
    """

    def __init__(self, recipe: DrawingRecipe) -> None:
        self.recipe, self.run_pass = recipe, recipe.run_pass
        self.generator = self.run_pass.generator(sampling=True)
        self.condition = condition_of(self.generator)
        self.batch = self.run_pass.params.evaluation.batch

    def __call__(self, shard: Proposals | Pictures) -> Tensor | Drawn:
        """Weigh proposals, or make pictures.

        Raises:
            DataError: a pixel or a logit is NaN or infinite.
            NonFiniteEnergyError: a weight is.
        """
        return self._weigh(shard) if isinstance(shard, Proposals) else self._draw(shard)

    @functools.cached_property
    def _energy(self) -> Energy:
        return trained_energy(self.run_pass)

    @functools.cached_property
    def _readers(self) -> dict[str, Classifier]:
        project, debias = self.run_pass.project, self.run_pass.params.debias
        specs = {"classifier": debias.classifier, "judge": debias.judge} if self.recipe.labels else {}
        return {name: project.reader(spec) for name, spec in specs.items()}

    def _noise(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Return the latents, (N, D), and the conditions, (N, C), of those numbers; None without a condition."""
        starts = [number - number % BLOCK for number in numbers]
        blocks = {start: self._block(start) for start in dict.fromkeys(starts)}
        places = [(start, number - start) for start, number in zip(starts, numbers, strict=True)]
        latents, conditions = (torch.stack([blocks[start][part][row] for start, row in places]) for part in (0, 1))
        return latents, conditions if self.condition else None

    def _block(self, start: int) -> tuple[Tensor, Tensor]:
        """Return all latents, and conditions, of a block of the stream."""
        where: tuple[int, int, str] = (start + BLOCK, self.recipe.seed, STREAM)
        (latents,) = latent_blocks(self.generator.prior, *where, start=start)
        (conditions,) = condition_blocks(self.condition, *where, start=start)
        return latents, self.condition.fix(conditions, self.recipe.condition).to(latents)

    def _weigh(self, shard: Proposals) -> Tensor:
        assert isinstance(self.generator, ChainedGenerator)  # every pass but the first ends with a flow
        latents, conditions = self._noise(range(shard.start, shard.stop))
        seed = derive(self.recipe.seed, "proposals", shard.start // BLOCK)
        weights = chain_log_weights(self.generator, self._energy, latents, conditions, seed=seed, batch=self.batch)
        return weights.cpu()

    @torch.inference_mode()
    def _draw(self, shard: Pictures) -> Drawn:
        latents, conditions = self._noise(shard.numbers)
        image = shown(conditioned_images(self.generator, latents, conditions), shard.first)
        columns: dict[str, list[Any]] = {"seed": [self.recipe.seed] * len(image), "index": list(shard.numbers)}
        if conditions is not None:
            for name, values in zip(self.condition.names, conditions.T.tolist(), strict=True):
                columns[f"condition.{name}"] = [f"{value:.6g}" for value in values]
        if shard.log_weights:
            columns["log_weight"] = [f"{value:.9g}" for value in shard.log_weights]
        pixels = (image * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return Drawn([png(picture) for picture in pixels], columns | self._labels(image, latents, shard.first))

    def _labels(self, image: Tensor, latents: Tensor, first: int) -> dict[str, list[str]]:
        """Return the label of each image by `READER.ATTRIBUTE`."""
        labels = {}
        for reader, classifier in self._readers.items():
            logits = read_logits(classifier, image, latents, f"the {reader}", first)
            for name, words in classifier.attributes.items():
                labels[f"{reader}.{name}"] = [words[index] for index in hard_labels(logits, name).tolist()]
        return labels


def plain(n: int, batch: int) -> list[Pictures]:
    """Return the shards of the first `n` pictures of the stream, at most `batch` in each."""
    starts = [number for number in range(n) if number % BLOCK % batch == 0]  # none goes beyond the end of a block
    return [Pictures(start, tuple(range(start, stop))) for start, stop in pairwise([*starts, n])]


def chosen(numbers: Tensor, log_weights: Tensor, batch: int) -> list[Pictures]:
    """Return the shards of the proposals of those numbers, at most `batch` in each, from the log weights of all."""
    parts = [(part.tolist(), log_weights[part].tolist()) for part in torch.split(numbers, batch)]
    return [Pictures(number * batch, tuple(part), tuple(weights)) for number, (part, weights) in enumerate(parts)]


def proposals(n: int) -> list[Proposals]:
    """Return the shards of the first `n` proposals."""
    return [Proposals(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
