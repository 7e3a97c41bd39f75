"""The tasks: a latent, readers, a request, and the exact answer to it.

A task asks either for shares of classes (`energy` is None: change the prior as little as possible until the hard labels
of `attribute` have the shares `target`) or for an energy (`target` is then what the classes come to under it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from benchmarks.scene import Likeness, Near, Reader, Scale, Scene, Score, beside, curved, image_of, leaning, likeness
from benchmarks.truth import Truth, both_features, boundaries, multipliers, points, truth_of
from promptgen.energies.base import Energy, Term
from promptgen.energies.compose import AnyOf
from promptgen.energies.moment import MomentEnergy
from promptgen.metrics.estimate import Vector

BYSTANDER = "bystander"
BYSTANDER_SHARE = 0.3
SHARP = 0.002
"""Width of the boundaries between classes that only count."""

SEVEN = (0.45, 0.20, 0.12, 0.10, 0.07, 0.04, 0.02)


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: its name, which ends in its number of dimensions.
        generator: the generator, whose use costs nothing; methods get one that counts.
        classifier: reads `attribute` and the bystander from images.
        attribute: attribute or product whose shares count.
        target: wanted shares of its hard labels, (K,).
        energy: the energy that is asked for; None if the shares are.
        wanted: the energy of the wanted density. No method may see it if the shares are asked for.
        truth: what is true of the wanted density.
    """

    name: str
    generator: Scene
    classifier: Reader
    attribute: str
    target: Vector
    energy: Energy | None
    wanted: Energy
    truth: Truth

    @property
    def dim(self) -> int:
        """Number of dimensions D of the latent."""
        return self.generator.prior.dim

    @property
    def samples(self) -> int:
        """Number of samples per measurement: 20,000, or as many as a flow draws in a few seconds."""
        return min(20_000, 2**22 // self.dim)


def _shares_task(name: str, dim: int, scales: Mapping[str, Scale], target: Vector | None = None) -> Task:
    """Return a task that asks for shares of one attribute, or of the product of two; uniform by default."""
    classifier, attribute = Reader(_with_bystander(scales)), " x ".join(scales)
    classes = int(np.prod([len(scale.boundaries) + 1 for scale in scales.values()]))
    target = np.full(classes, 1 / classes) if target is None else target
    beta = multipliers(*both_features(classifier(image_of(points())), attribute), target)
    wanted = MomentEnergy(classifier, attribute, beta)
    truth = truth_of(wanted, classifier, attribute, BYSTANDER)
    return Task(f"{name}-{dim}", Scene(dim), classifier, attribute, target, None, wanted, truth)


def _energy_task(name: str, dim: int, energy: Energy, score: Score, shares: tuple[float, ...] | None = None) -> Task:
    """Return a task that asks for an energy; its classes cut a score into shares under the wanted density, or at 0."""
    cuts = boundaries(score, shares, energy) if shares else (0.0,)
    classifier = Reader(_with_bystander({"class": Scale(score, cuts, SHARP)}))
    truth = truth_of(energy, classifier, "class", BYSTANDER)
    return Task(f"{name}-{dim}", Scene(dim), classifier, "class", truth.shares, energy, energy, truth)


def _with_bystander(scales: Mapping[str, Scale]) -> dict[str, Scale]:
    return {**scales, BYSTANDER: Scale(beside, boundaries(beside, (1 - BYSTANDER_SHARE, BYSTANDER_SHARE)))}


def _classes(shares: tuple[float, ...], dim: int, name: str) -> Task:
    """Ordered classes of a bent score, wanted in equal shares."""
    return _shares_task(name, dim, {"class": Scale(curved, boundaries(curved, shares))})


def _table(dim: int) -> Task:
    """Two correlated attributes, whose four combinations are wanted to a table."""
    scales = {
        "hair": Scale(curved, boundaries(curved, (0.7, 0.3))),
        "glasses": Scale(leaning, boundaries(leaning, (0.8, 0.2))),
    }
    return _shares_task("table", dim, scales, np.array([0.3, 0.2, 0.2, 0.3]))


def _steep(dim: int) -> Task:
    """A steep energy like that of a text; the classes are the fifths of the likeness."""
    return _energy_task("steep", dim, Likeness(weight=18.0), likeness, (0.2,) * 5)


def _modes(dim: int) -> Task:
    """Two modes of unequal mass, more than five standard deviations apart; the classes are the two sides."""
    either = AnyOf({"right": Term(Near((2.5, 0.0), 0.7)), "left": Term(Near((-2.2, 0.0), 0.7))})
    return _energy_task("modes", dim, either, lambda u: u[:, 0])


TASKS: Mapping[str, Callable[[], Task]] = {
    "two-64": partial(_classes, (0.88, 0.12), 64, "two"),
    "seven-64": partial(_classes, SEVEN, 64, "seven"),
    "rare-64": partial(_classes, (0.98, 0.02), 64, "rare"),
    "table-64": partial(_table, 64),
    "steep-64": partial(_steep, 64),
    "modes-64": partial(_modes, 64),
    "seven-512": partial(_classes, SEVEN, 512, "seven"),
    "steep-512": partial(_steep, 512),
    "two-4096": partial(_classes, (0.88, 0.12), 4096, "two"),
}


def dim_of(name: str) -> int:
    """Return the number of dimensions of a task, without making it."""
    return int(name.rpartition("-")[2])


def seeds_of(name: str) -> int:
    """Return the largest number of seeds of a task: with thousands of dimensions, a run takes minutes."""
    return 3 if dim_of(name) > 1024 else 10


@cache
def make_task(name: str) -> Task:
    """Return the task of that name, a key of `TASKS`."""
    return TASKS[name]()
