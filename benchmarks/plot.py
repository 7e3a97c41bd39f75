"""The figure of a comparison: KL of the shares against images, one panel per task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.registry import METHODS
from benchmarks.results import Results
from benchmarks.table import KL_GOAL, Runs
from benchmarks.tasks import TASKS
from promptgen.files import atomic_path

COLUMNS = 3
LEAST = 1e-4
"""KL that chance alone gives with 20,000 samples of a few classes; the axes end there."""

POINTS = 60


def plot(results: Results, path: Path) -> None:
    """Draw the figure into a PNG file."""
    tasks = [task for task in TASKS if any(key[0] == task for key in results.runs)]
    rows = -(-len(tasks) // COLUMNS)
    colours = dict(zip(METHODS, sns.color_palette("colorblind"), strict=False))
    with mpl.rc_context({**sns.axes_style("whitegrid"), "font.size": 9}):
        figure = Figure(figsize=(3.4 * COLUMNS, 2.7 * rows + 0.5), layout="constrained")
        panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, task in zip(panels, tasks, strict=False):
            _panel(axes, results, task, colours)
        for axes in panels[len(tasks) :]:
            axes.remove()
        figure.supxlabel("images, those with gradient counted three times", fontsize=9)
        figure.supylabel("KL of the shares to the wanted ones, nats", fontsize=9)
        handles, labels = _legend(panels)
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata={"Software": None})


def curve(runs: Runs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return units, (n,), and the KL of each run there, (seeds, n), interpolated between its measurements.

    The units start where every run has a measurement, and end where the first one ends.
    """
    measured = [[(row["units"], row["kl"]) for row in run if row["error"] is None] for run in runs]
    points = [np.log(np.maximum(run, LEAST)) for run in measured if run]
    if not points:
        return np.empty(0), np.empty((0, 0))
    first, last = max(run[0, 0] for run in points), min(run[-1, 0] for run in points)
    at = np.linspace(first, max(first, last), POINTS)
    return np.exp(at), np.exp([np.interp(at, run[:, 0], run[:, 1]) for run in points])


def _panel(axes: Axes, results: Results, task: str, colours: Mapping[str, Any]) -> None:
    """Draw the methods of a task: the median as a line, and a band from the best seed to the worst."""
    for method, entry in METHODS.items():
        units, kl = curve(results.of(task, method))
        if len(units):
            style = {"color": colours[method], "label": entry.title}
            axes.plot(units, np.median(kl, axis=0), linewidth=1.8, **style)
            axes.plot(units[-1], np.median(kl[:, -1]), "o", markersize=4, color=colours[method])
            axes.fill_between(units, kl.min(axis=0), kl.max(axis=0), color=colours[method], alpha=0.15, linewidth=0)
    axes.axhline(KL_GOAL, color="0.3", linestyle=(0, (4, 3)), linewidth=1)
    axes.set(xscale="log", yscale="log", ylim=(LEAST, 2))
    axes.set_title(task, fontsize=10, loc="left")


def _legend(panels: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    """Return the lines and titles of all methods that any panel shows."""
    lines = {title: line for axes in panels for line, title in zip(*axes.get_legend_handles_labels(), strict=True)}
    titles = [entry.title for entry in METHODS.values() if entry.title in lines]
    return [lines[title] for title in titles], titles
