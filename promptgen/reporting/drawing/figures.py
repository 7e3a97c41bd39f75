"""The figures of the report, as inline SVG that takes its colours and fonts from the page.

Panels are small and the page places several side by side, so they stay readable on a narrow screen. Matplotlib
draws in placeholder colours, which are then replaced by the page's CSS variables: one drawing serves light and dark.
The bytes depend on the data alone: no date, no random ids, no link to another site.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, groupby
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from promptgen.records import Interval
from promptgen.reporting.drawing.history import Curve
from promptgen.reporting.text.formats import THIN, brief, percent

INK, MUTED, LINE, TARGET = "#010101", "#020202", "#030303", "#040404"
CLASSIFIER, JUDGE, TRUTH = "#110001", "#110002", "#110003"
SERIES = ("#120001", "#120002", "#120003", "#120004", "#120005", "#120006")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    TARGET: "--target",
    CLASSIFIER: "--classifier",
    JUDGE: "--judge",
    TRUTH: "--truth",
    **{colour: f"--series-{index}" for index, colour in enumerate(SERIES, start=1)},
}
SIZE = (4.6, 2.95)  # inches of 72 points
ROOMY = 4  # largest number of passes with room to write every number and kind
SPARSE = 12  # curves with at most so many points show them as dots; a single point would be invisible
SMOOTHING_PARTS = 20  # a running mean covers this fraction of a curve


@dataclass(frozen=True)
class Mark:
    """How the numbers of one source are drawn: colour, matplotlib's marker, shift along the axis of passes."""

    colour: str
    marker: str
    shift: float


MARKS: dict[str, Mark] = {
    "classifier": Mark(CLASSIFIER, "s", -0.14),
    "judge": Mark(JUDGE, "o", 0.0),
    "truth": Mark(TRUTH, "D", 0.14),
    "measure": Mark(INK, "o", 0.0),
}
WRITTEN = ("judge", "measure", "classifier")  # the first available of these has its numbers written out

Series = Mapping[str, Sequence[Interval | None]]
"""One interval, or None, per pass, by source (``measure`` for measures that are not counted) or by class."""

DASHED, DOTTED = (0, (4, 3)), (0, (1, 2))
TICKS: dict[str, Any] = {"nbins": 5, "steps": [1, 2, 5, 10]}  # at 0.10 and 0.12, not at 0.125

STYLE: dict[Any, Any] = {
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}


def label_marks(labels: Sequence[str]) -> dict[str, Mark]:
    """Return how the classes of an attribute, no more than `SERIES`, are drawn into one panel."""
    middle = (len(labels) - 1) / 2
    return {label: Mark(SERIES[i], "o", 0.08 * (i - middle)) for i, label in enumerate(labels)}


def pass_panel(
    name: str,
    passes: Sequence[tuple[str, str]],
    series: Series,
    *,
    target: float | None = None,
    floor: Sequence[float] | None = None,
    shares: bool = True,
    marks: Mapping[str, Mark] = MARKS,
) -> str:
    """Draw numbers with their intervals, pass by pass, one mark per series.

    Args:
        name: unique on the page; becomes part of every id inside the drawing.
        passes: number and kind of each pass, for the axis.
        series: the numbers.
        target: where the numbers should end, drawn as a dashed line.
        floor: per pass, the value that sampling noise alone would give; drawn as a dotted line.
        shares: whether the numbers are shares in [0, 1], shown as percentages.
        marks: how each series is drawn.
    """
    with _panel(name) as (axes, result):
        for source, intervals in series.items():
            _points(axes, marks[source], intervals)
        written = next((series[source] for source in WRITTEN if any(series.get(source, ()))), [None] * len(passes))
        shown = _written(passes)
        written = [interval if i in shown else None for i, interval in enumerate(written)]
        _values(axes, written, series, percent if shares else brief)
        if target is not None:
            axes.axhline(target, color=TARGET, linestyle=DASHED, linewidth=1.4, zorder=1)
        if floor is not None:
            axes.plot(range(len(floor)), floor, color=MUTED, linestyle=DOTTED, linewidth=1.4, zorder=1)
        _pass_axis(axes, passes)
        _frame(axes, 0.1 if shares else 0.02, shares)
    return result[0]


def _pass_axis(axes: Axes, passes: Sequence[tuple[str, str]]) -> None:
    """Write the number under each pass, and the kind once under the passes of a kind that follow each other.

    Where the passes stand close, kinds take turns on two lines, so that neighbours do not overlap.
    """
    axes.set_xlim(-0.5, len(passes) - 0.5)
    axes.set_xticks(range(len(passes)), [number for number, _ in passes])
    lines = 1 if len(passes) <= ROOMY else 2
    start = 0
    for turn, (kind, group) in enumerate(groupby(passes, key=lambda tick: tick[1])):
        end = start + len(list(group))
        middle, below = (start + end - 1) / 2, 18 + 15 * (turn % lines)
        style: dict[str, Any] = {"ha": "center", "va": "top", "color": MUTED, "annotation_clip": False}
        axes.annotate(kind, (middle, 0), (0, -below), ("data", "axes fraction"), "offset points", **style)
        start = end


def _written(passes: Sequence[tuple[str, str]]) -> set[int]:
    """Return the positions whose numbers are written out: all, or as many as do not overlap.

    The last pass has priority, then the first, then the first pass of each kind.
    """
    if len(passes) <= ROOMY:
        return set(range(len(passes)))
    begins = [i for i in range(1, len(passes)) if passes[i - 1][1] != passes[i][1]]
    width = math.ceil(len(passes) / ROOMY)  # of a number, in passes
    chosen: set[int] = set()
    for i in (len(passes) - 1, 0, *begins):
        if all(abs(i - other) >= width for other in chosen):
            chosen.add(i)
    return chosen


def _points(axes: Axes, mark: Mark, intervals: Sequence[Interval | None]) -> None:
    """Draw the marks of one source, with whiskers and a thin line through them."""
    points = [
        (i + mark.shift, interval.value, interval.low, interval.high)
        for i, interval in enumerate(intervals)
        if interval
    ]
    if not points:
        return
    x, y, low, high = zip(*points, strict=True)
    axes.plot(x, y, color=mark.colour, linewidth=1, alpha=0.35, zorder=2)
    axes.vlines(x, low, high, color=mark.colour, linewidth=2, zorder=3)
    axes.plot(x, y, mark.marker, color=mark.colour, markersize=6, zorder=4)


def _values(axes: Axes, intervals: Sequence[Interval | None], series: Series, written: Callable[[float], str]) -> None:
    """Write the numbers above all whiskers of their pass."""
    for i, (interval, *others) in enumerate(zip(intervals, *series.values(), strict=True)):
        if interval:
            top = max(other.high for other in others if other)
            axes.annotate(
                written(interval.value), (i, top), (0, 5), textcoords="offset points", ha="center", fontsize=11
            )


def _percent_ticks() -> FuncFormatter:
    return FuncFormatter(lambda share, _: f"{100 * share:.3g}{THIN}%")


def _frame(axes: Axes, least_span: float, shares: bool) -> None:
    """Give the vertical axis a span of at least `least_span`, room for the numbers, and ticks at possible values."""
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max(high - low, least_span) / 2
    low, high = max(middle - half * 1.1, -0.02 if shares else 0.0), middle + half * 1.3
    highest = 1.0 if shares else high
    axes.set_yticks([tick for tick in MaxNLocator(**TICKS).tick_values(low, high) if max(low, 0.0) <= tick <= highest])
    axes.set_ylim(low, min(high, highest + 0.08))
    if shares:
        axes.yaxis.set_major_formatter(_percent_ticks())


def curve_panel(
    name: str, curves: Mapping[str, Curve], targets: Mapping[str, float] | None = None, *, shares: bool = False
) -> str:
    """Draw curves over training steps: every value faintly, and a running mean on top.

    Args:
        name: unique on the page; becomes part of every id inside the drawing.
        curves: (step, value) pairs by name, drawn in the order of the page's series colours.
        targets: values the curves should end at, by the same names, drawn as dashed lines.
        shares: whether the numbers are shares in [0, 1], shown as percentages.
    """
    with _panel(name) as (axes, result):
        for colour, curve in zip(cycle(SERIES), curves.values(), strict=False):
            table = pd.DataFrame(curve, columns=["step", "value"])
            window = max(1, len(table) // SMOOTHING_PARTS)
            table["mean"] = table["value"].rolling(window, min_periods=1, center=True).mean()
            dots = {"marker": "o", "markersize": 4, "markeredgecolor": colour} if len(table) <= SPARSE else {}
            for values, line in (("value", {"linewidth": 0.8, "alpha": 0.3}), ("mean", {"linewidth": 1.8} | dots)):
                sns.lineplot(table, x="step", y=values, color=colour, errorbar=None, ax=axes, **line)
        for goal in sorted({value for label, value in (targets or {}).items() if label in curves}):
            axes.axhline(goal, color=TARGET, linestyle=DASHED, linewidth=1.4)
        axes.set(xlabel="training step", ylabel="")
        axes.yaxis.set_major_locator(MaxNLocator(**TICKS))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, **TICKS))
        if shares:
            axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
            axes.yaxis.set_major_formatter(_percent_ticks())
    return result[0]


@contextmanager
def _panel(name: str) -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes to draw on, and a list that holds the finished SVG after the block."""
    result: list[str] = []
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE, layout="constrained")  # not through pyplot, which keeps global state
        yield figure.add_subplot(), result
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    result.append(_inline(buffer.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """Return matplotlib's SVG fit for a page: its colours are variables, its fonts the page's, its ids carry `name`."""
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href")
    referenced = set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg))
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>", ""),
        (r"<style.*?</style>", ""),  # it would apply to the whole page
        (r"<defs>\s*</defs>", ""),
        (r'(<svg)[^>]*?( viewBox="[^"]*")[^>]*>', r'\1 class="plot" aria-hidden="true"\2>'),
        (r' id="([\w.-]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in referenced else ""),
        (r'(href="|url\()#', rf"\g<1>#{name}-"),
        (r"font-family: [^;\"]*;? ?", ""),
        (r' transform="rotate\(-0 [^"]*"', ""),
        (r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0])),  # coordinates, not the written numbers
        (r"\s*\n\s*", "\n"),
    ):
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
