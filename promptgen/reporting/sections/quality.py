"""Whether control and de-biasing cost quality or variety: the figures in sentences, and the warnings.

A flow can only select from what its generator makes. A control is meant to select, so lower recall, lower identity
diversity and a Frechet distance above chance are not defects in themselves. A de-biasing pass moves shares within what
the control left, and should not narrow it further: if it does, faces repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from promptgen.records import Distance, Figure, Interval, Metrics, PassRecord, Quality
from promptgen.reporting.sections.control import DIVERSITY
from promptgen.reporting.text.formats import brief, listing, number, percent
from promptgen.reporting.text.glossary import MEASURES, Measure

COLLAPSE = "a sign of collapse, unless the target itself implies less variety. Look for repeated faces"
COSTS = {
    "precision": "fewer of its samples look like the generator’s own. Look for defects in its images",
    "recall": f"its samples cover less of the generator’s variety, {COLLAPSE}",
    "identity_diversity": f"its samples differ less from each other, {COLLAPSE}",
}
"""What a fall of each figure in a de-biasing pass means."""

Row = list[Figure | None]
"""The figure of a measure in each pass; None where it was not measured."""


@dataclass(frozen=True)
class Fall:
    """A figure of quality or variety that is lower than in the previous pass, beyond both intervals."""

    figure: str
    before: Interval
    after: Interval

    def __str__(self) -> str:
        """Return the fall in words, such as "recall fell from 71.0 % to 23.0 %"."""
        shown = percent if MEASURES[self.figure].unit == "share" else number
        name = self.figure.replace("_", " ")
        return f"{name} fell from {shown(self.before.value)} to {shown(self.after.value)}"


def falls(before: PassRecord, after: PassRecord) -> list[Fall]:
    """Return every figure of quality and variety that fell beyond both intervals from one pass to the next."""
    pairs = {name: (_figures(before).get(name), _figures(after).get(name)) for name in COSTS}
    return [
        Fall(name, high, low)
        for name, (high, low) in pairs.items()
        if isinstance(high, Interval) and isinstance(low, Interval) and low.high < high.low
    ]


def _figures(record: PassRecord) -> dict[str, Figure]:
    """Return the figures of quality and variety of a pass, by their names in the glossary."""
    quality: dict[str, Figure] = record.quality.figures if record.quality else {}
    diversity = record.control.get(DIVERSITY)
    return quality | ({"identity_diversity": diversity} if diversity else {})


def cost_warnings(metrics: Metrics) -> Iterator[str]:
    """Yield a warning per figure of quality or variety that a de-biasing pass lowered beyond both intervals."""
    for before, after in pairwise(metrics.passes):
        if after.kind == "debias":
            for fall in falls(before, after):
                yield f"Pass {after.number}: {fall}, so {COSTS[fall.figure]}."


def few_samples_warning(metrics: Metrics) -> Iterator[str]:
    """Yield a warning if the Frechet distance of a pass has too few samples."""
    passes = [str(record.number) for record in metrics.passes if record.quality and record.quality.few_samples]
    if passes:
        yield (
            f"{'Pass' if len(passes) == 1 else 'Passes'} {listing(passes)}: the feature network has at least as many "
            "features as there are samples, so the Frechet distance means little. Raise evaluation.samples, or use a "
            "network with fewer features."
        )


def cost(metrics: Metrics) -> list[str]:
    """Return whether the control or de-biasing cost quality or variety, in sentences."""
    pairs = [
        (before, after)
        for before, after in pairwise(metrics.passes)
        if (before.quality and after.quality) or all(DIVERSITY in record.control for record in (before, after))
    ]
    controlled = [fall for before, after in pairs if after.kind == "control" for fall in falls(before, after)]
    narrowed = [str(fall) for fall in controlled if fall.figure != "precision"]
    debiased = [pair for pair in pairs if pair[1].kind == "debias"]
    lost = [f"{fall} in pass {pair[1].number}" for pair in debiased for fall in falls(*pair)]
    sentences = [f"The control narrowed the output, as it is meant to: {listing(narrowed)}."] if narrowed else []
    sentences += [f"The control may have cost quality: {fall}." for fall in controlled if fall.figure == "precision"]
    if lost:
        sentences.append(f"De-biasing cost quality or variety: {listing(lost)}.")
    elif debiased:
        sentences.append("De-biasing cost neither, by these figures: none fell beyond the intervals.")
    return sentences


def quality_sentence(quality: Quality) -> str:
    """Return the figures of a pass in plain words."""
    precision, recall = percent(quality.precision.value), percent(quality.recall.value)
    if quality.reference == "its other half":
        return (
            f"Two halves of the generator’s own samples, compared with each other: {precision} of one half look like "
            f"the other half, and they cover {recall} of it. These are the values expected by chance alone."
        )
    return (
        f"{precision} of the samples look like the generator’s own, and they cover {recall} of its variety. "
        f"{_distance_words(quality)}"
    )


def _distance_words(quality: Quality) -> str:
    """Return how far the samples are from the generator's own, by the Frechet distance, in plain words."""
    if quality.few_samples:
        return "There are too few samples for a Frechet distance."
    if quality.frechet.value <= quality.frechet.chance:
        return "Their Frechet distance is no larger than expected by chance alone."
    ratio = quality.frechet.value / quality.frechet.chance
    times = f"{brief(ratio)} times the value expected by chance alone"
    return f"Their Frechet distance is {times}."


def quality_series(metrics: Metrics) -> list[tuple[Measure, Row]]:
    """Return every measure of quality and variety that at least one pass has, with its figure in each pass."""
    figures = [_figures(record) for record in metrics.passes]
    series = [(measure, [by_name.get(name) for by_name in figures]) for name, measure in MEASURES.items()]
    return [(measure, row) for measure, row in series if any(row)]


def quality_rows(metrics: Metrics) -> list[tuple[str, Measure, list[Figure | float | None]]]:
    """Return every row of the table: its title, its measure, and its figures or their values expected by chance."""
    rows: list[tuple[str, Measure, list[Figure | float | None]]] = []
    for measure, figures in quality_series(metrics):
        rows.append((measure.title, measure, [*figures]))
        if any(isinstance(figure, Distance) for figure in figures):
            chance = [figure.chance if isinstance(figure, Distance) else None for figure in figures]
            rows.append((f"{measure.title}, by chance", measure, [*chance]))
    return rows
