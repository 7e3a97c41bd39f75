"""The table of a comparison: for each task and method, the median over the seeds and the worst of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks.registry import METHODS
from benchmarks.results import Results
from benchmarks.run import Row
from benchmarks.tasks import TASKS

KL_GOAL, ESS_GOAL = 0.02, 0.6
OURS = "reuse"

HEAD = (
    "task",
    "method",
    "seeds",
    f"units to KL ≤ {KL_GOAL:g}",
    f"and ESS ≥ {ESS_GOAL:g}",
    "units in all",
    "KL",
    "ESS",
    "gap, nats",
    "bystander moved, points",
    "seconds",
)

Runs = Sequence[Sequence[Row]]


def units_to_goal(run: Sequence[Row], ess: float = 0.0) -> float:
    """Return the units from which on all measurements of a run have reached the goal; infinite if the last has not.

    Args:
        run: measurements in the order of units.
        ess: ESS that is wanted as well; a method without a density reaches none above 0.
    """
    units = math.inf
    for row in reversed(run):
        if row["error"] is not None or row["kl"] > KL_GOAL or (row["ess"] or 0.0) < ess:
            break
        units = row["units"]
    return units


def table(results: Results) -> str:
    """Return the table in Markdown: each cell is the median and, in brackets, the worst seed."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * 2 + "|--:" * (len(HEAD) - 2) + "|"]
    for task in TASKS:
        for method, entry in METHODS.items():
            if runs := results.of(task, method):
                lines.append("| " + " | ".join([task, entry.title, *_cells(runs)]) + " |")
    return "\n".join(lines)


def ratios(results: Results) -> str:
    """Return a table in Markdown: the median units of each method to both goals, divided by ours.

    A method that has not arrived when its budget is spent takes more than that: the ratio is then a lower bound.
    """
    others = [name for name in METHODS if name != OURS]
    titles = [METHODS[name].title for name in others]
    lines = [f"| task | ours, units | {' | '.join(titles)} |", "|---" + "|--:" * (len(others) + 1) + "|"]
    for task in TASKS:
        ours = median([units_to_goal(run, ESS_GOAL) for run in results.of(task, OURS)] or [math.inf])
        if math.isfinite(ours):
            cells = [_ratio(results.of(task, name), ours) for name in others]
            lines.append(f"| {task} | {ours:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(runs: Runs, ours: float) -> str:
    if not runs or all(run[-1]["ess"] is None for run in runs):
        return "–"
    units = median(units_to_goal(run, ESS_GOAL) for run in runs)
    spent = median(run[-1]["units"] for run in runs)
    return f"{units / ours:.3g}" if math.isfinite(units) else f"> {spent / ours:.3g}"


def _cells(runs: Runs) -> list[str]:
    """Return the cells of a method on a task, after its title."""
    whole = [run[-1] for run in runs if run[-1]["error"] is None]
    failed = len(runs) - len(whole)
    with_density = any(row["ess"] is not None for row in whole)
    return [
        f"{len(runs)}" + (f", {failed} failed" if failed else ""),
        _goal(runs, 0.0),
        _goal(runs, ESS_GOAL) if with_density else "–",
        _summary((row["units"] for row in whole), "{:,.0f}".format),
        _summary((row["kl"] for row in whole), "{:.4f}".format),
        _summary((row["ess"] for row in whole), "{:.2f}".format, worst=min),
        _summary((row["gap"] for row in whole), "{:.2f}".format),
        _bystander(whole),
        _summary((row["seconds"] for row in whole), "{:.1f}".format),
    ]


def _goal(runs: Runs, ess: float) -> str:
    """Return the units to the goal, or how many units did not suffice."""
    units = [units_to_goal(run, ess) for run in runs]
    spent = max(run[-1]["units"] for run in runs)

    def written(value: float) -> str:
        return f"{value:,.0f}" if math.isfinite(value) else f"> {spent:,}"

    return _summary(units, written)


def _summary(
    values: Iterable[float | None], written: Callable[[float], str], worst: Callable[[list[float]], float] = max
) -> str:
    """Return the median of what is known and, in brackets, the worst."""
    measured = [value for value in values if value is not None]
    if not measured:
        return "–"
    middle, end = written(median(measured)), written(worst(measured))
    return middle if middle == end else f"{middle} ({end})"


def _bystander(rows: Sequence[Row]) -> str:
    """Return the median and the largest move of the bystander, and how many intervals leave out zero."""
    if not rows:
        return "–"
    moves = [100 * row["bystander"] for row in rows]
    outside = sum(not row["bystander_low"] <= 0 <= row["bystander_high"] for row in rows)
    return f"{median(moves):+.1f} ({max(moves, key=abs):+.1f}), {outside} of {len(rows)} outside"
