"""How well shares are corrected for the errors of a weak classifier: run by hand, the figures are in docs/report.md.

    python -m tests.measure_correction      prints the errors and draws docs/figures/correction.png

On pictures of the world's generator the truth is known. Every sample has a true share of its own and is counted by a
classifier that sees 5 x 5 pixels, whose confusion table comes from other pictures than the sample's. It takes about
a minute on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

import promptgen.world
from examples.weak_classifier import ShortSighted
from promptgen.flows.sampling import draw
from promptgen.metrics.correction import corrected_shares
from promptgen.metrics.estimate import Estimate
from promptgen.metrics.shares import class_counts, joint_table, share_estimates
from promptgen.reporting.drawing.figures import DASHED, STYLE
from promptgen.world.generator import load_generator

GENERATOR = Path(promptgen.world.__file__).parent / "weights" / "world-generator.safetensors"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "correction.png"
PICTURES = 4096
"""Half of them measure the confusion; samples come from the others."""
SAMPLE = 500
SHARES = np.linspace(0.05, 0.95, 19)
REPETITIONS = 20

INK, MUTED, LINE, COUNTED, CORRECTED = "#1c1b19", "#66625a", "#e3dfd6", "#b8560f", "#0a7560"
"""The colours of the report in light mode."""

Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Trial:
    """One sample, counted.

    Attributes:
        true: share of long hair that it was drawn with.
        counted: share that the classifier reads.
        corrected: the same without the classifier's errors.
    """

    true: float
    counted: Estimate
    corrected: Estimate


def read_pictures(n: int = PICTURES) -> tuple[Classes, Classes]:
    """Return true and read hair, (n,) each, of pictures of the world's generator: 0 is short, 1 is long."""
    generator, classifier = load_generator(GENERATOR), ShortSighted()
    true, read = [], []
    for sample in draw(generator, n, seed=0, stream="correction"):
        true.append(generator.truth(sample.latent)["hair"])
        read.append(classifier(sample.image.clamp(0, 1))["hair"].argmax(dim=1))
    return torch.cat(true).numpy(), torch.cat(read).numpy()


def accuracies(true: Classes, read: Classes) -> list[float]:
    """Return how often short and long hair are read as what they are, and how often any is."""
    right = true == read
    return [float(part.mean()) for part in (right[true == 0], right[true == 1], right)]


def trials(true: Classes, read: Classes) -> list[Trial]:
    """Return REPETITIONS samples of each of SHARES, each with a new division of the pictures."""
    rng = np.random.default_rng(0)
    return [_trial(share, true, read, rng) for _ in range(REPETITIONS) for share in SHARES.tolist()]


def _trial(share: float, true: Classes, read: Classes, rng: np.random.Generator) -> Trial:
    labelled, pool = np.split(rng.permutation(len(true)), 2)
    confusion = joint_table([true[labelled], read[labelled]], [2, 2])
    long = rng.binomial(SAMPLE, share)
    chosen = [rng.choice(pool[true[pool] == label], n, replace=False) for label, n in ((0, SAMPLE - long), (1, long))]
    counts = class_counts(read[np.concatenate(chosen)], 2)
    return Trial(share, share_estimates(counts)[1], corrected_shares(counts, confusion)[1])


def mean_error(found: Sequence[Estimate], made: Sequence[Trial]) -> float:
    """Return the mean absolute difference from the true shares."""
    return float(np.mean([abs(each.value - trial.true) for each, trial in zip(found, made, strict=True)]))


def coverage(found: Sequence[Estimate], made: Sequence[Trial]) -> float:
    """Return the part of the intervals that contain the true share."""
    return float(np.mean([each.contains(trial.true) for each, trial in zip(found, made, strict=True)]))


def plot(made: Sequence[Trial], path: Path) -> None:
    """Draw reported against true shares, with intervals, of one sample for each true share."""
    colours = {"text.color": INK, "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED}
    lines = {"axes.edgecolor": LINE, "grid.color": LINE, "figure.facecolor": "white"}
    with mpl.rc_context({**STYLE, **colours, **lines}):
        figure = Figure(figsize=(7.4, 4.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=INK, linestyle=DASHED, linewidth=1.4, zorder=1, label="exact")
        _estimates(axes, [trial.counted for trial in made], made, COUNTED, "s", "as the weak classifier counts")
        _estimates(axes, [trial.corrected for trial in made], made, CORRECTED, "o", "corrected for its errors")
        axes.set(xlabel="true share of long hair", ylabel="reported share", xlim=(0, 1.005), ylim=(-0.03, 1.03))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol="\u202f%"))
        axes.legend(frameon=False, loc="lower right", fontsize=11)
        figure.savefig(path, dpi=140)


def _estimates(
    axes: Axes, found: Sequence[Estimate], made: Sequence[Trial], colour: str, marker: str, label: str
) -> None:
    shift = -0.005 if marker == "s" else 0.005  # so that intervals of the same sample lie side by side
    x = [trial.true + shift for trial in made]
    axes.vlines(x, [each.low for each in found], [each.high for each in found], color=colour, linewidth=2, zorder=3)
    values = [each.value for each in found]
    sns.scatterplot(x=x, y=values, marker=marker, s=38, color=colour, linewidth=0, label=label, zorder=4, ax=axes)


def main() -> None:
    """Measure, print and draw."""
    true, read = read_pictures()
    made = trials(true, read)
    print("accuracy: short {:.3f}, long {:.3f}, both {:.3f}".format(*accuracies(true, read)))
    print(f"{len(made)} samples of {SAMPLE}")
    for name in ("counted", "corrected"):
        found = [getattr(trial, name) for trial in made]
        print(f"{name}: mean error {mean_error(found, made):.4f}, coverage {coverage(found, made):.3f}")
    plot(made[: len(SHARES)], FIGURE)


if __name__ == "__main__":
    main()
