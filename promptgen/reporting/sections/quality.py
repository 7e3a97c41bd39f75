"""Whether control and de-biasing cost quality or variety: the figures in sentences, and what is to be warned of.

A flow only chooses among what its generator makes. A control is meant to choose, so that less recall, less different
identities and a Frechet distance above chance are no fault of it. A de-biasing pass moves shares within what the
control has left, and should leave no less of it: if it does, faces repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from promptgen.records import Distance, Figure, Interval, Metrics, PassRecord, Quality
from promptgen.reporting.sections.control import DIVERSITY
from promptgen.reporting.text.formats import brief, listing, number, percent
from promptgen.reporting.text.glossary import MEASURES, Measure

COLLAPSE = "a sign of collapse, unless the target itself asks for less variety. Look for faces that repeat"
COSTS = {
    "precision": "fewer of its samples look like something the generator makes. Look for faults in its pictures",
    "recall": f"its samples cover less of what the generator makes, {COLLAPSE}",
    "identity_diversity": f"its samples are less unlike each other, {COLLAPSE}",
}
"""What it means that a figure fell in a de-biasing pass."""

Row = list[Figure | None]
"""A measure's figure in each pass; None where it was not measured."""


@dataclass(frozen=True)
class Fall:
    """A figure of quality or variety that is lower than in the pass before, beyond both intervals."""

    figure: str
    before: Interval
    after: Interval

    def __str__(self) -> str:
        """Return the fall in words, such as "recall fell from 71.0 % to 23.0 %"."""
        shown = percent if MEASURES[self.figure].unit == "share" else number
        name = self.figure.replace("_", " ")
        return f"{name} fell from {shown(self.before.value)} to {shown(self.after.value)}"


def falls(before: PassRecord, after: PassRecord) -> list[Fall]:
    """Return every figure of quality and variety that clearly fell from one pass to the next."""
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
    """Yield a sentence per figure of quality or variety that a de-biasing pass has clearly lowered."""
    for before, after in pairwise(metrics.passes):
        if after.kind == "debias":
            for fall in falls(before, after):
                yield f"Pass {after.number}: {fall}, so {COSTS[fall.figure]}."


def few_samples_warning(metrics: Metrics) -> Iterator[str]:
    """Yield a sentence if the Frechet distance of some pass rests on too few samples."""
    passes = [str(record.number) for record in metrics.passes if record.quality and record.quality.few_samples]
    if passes:
        yield (
            f"{'Pass' if len(passes) == 1 else 'Passes'} {listing(passes)}: the network that looks at quality gives no "
            "fewer features than there are samples, so the Frechet distance says little. Raise evaluation.samples, or "
            "take a network with fewer features."
        )


def cost(metrics: Metrics) -> list[str]:
    """Return the answer to whether anything was lost: by what was asked for, and by de-biasing."""
    pairs = [pair for pair in pairwise(metrics.passes) if _comparable(*pair)]
    asked = [fall for before, after in pairs if after.kind == "control" for fall in falls(before, after)]
    narrowed = [str(fall) for fall in asked if fall.figure != "precision"]
    debiased = [pair for pair in pairs if pair[1].kind == "debias"]
    lost = [f"{fall} in pass {pair[1].number}" for pair in debiased for fall in falls(*pair)]
    told = [f"What was asked for narrowed what is made, as asking does: {listing(narrowed)}."] if narrowed else []
    told += [f"What was asked for may have cost quality: {fall}." for fall in asked if fall.figure == "precision"]
    if lost:
        told.append(f"De-biasing cost something: {listing(lost)}.")
    elif debiased:
        told.append("De-biasing cost neither, as far as these figures tell: none fell beyond the intervals.")
    return told


def _comparable(before: PassRecord, after: PassRecord) -> bool:
    return bool(before.quality and after.quality) or all(DIVERSITY in record.control for record in (before, after))


def quality_sentence(quality: Quality) -> str:
    """Return what the figures of a pass say, in plain words."""
    precision, recall = percent(quality.precision.value), percent(quality.recall.value)
    if quality.reference == "its other half":
        return (
            f"The generator against itself, one half of its samples with the other: {precision} look like something in "
            f"the other half, and cover {recall} of it. So much chance alone shows."
        )
    return (
        f"{precision} of the samples look like something the generator makes, and they cover {recall} of what it "
        f"makes. {_distance_words(quality)}"
    )


def _distance_words(quality: Quality) -> str:
    """Return what the Frechet distance says of how far the samples have moved from the generator's own."""
    if quality.few_samples:
        return "There are too few of them for a Frechet distance."
    if quality.frechet.value <= quality.frechet.chance:
        return "Their Frechet distance is no more than chance alone shows."
    ratio = quality.frechet.value / quality.frechet.chance
    times = f"{brief(ratio)} times what chance alone shows"
    return f"Their Frechet distance is {times}."


def quality_series(metrics: Metrics) -> list[tuple[Measure, Row]]:
    """Return every measure of quality and variety that some pass has, with its figure of each pass."""
    figures = [_figures(record) for record in metrics.passes]
    series = [(measure, [each.get(name) for each in figures]) for name, measure in MEASURES.items()]
    return [(measure, row) for measure, row in series if any(row)]


def quality_rows(metrics: Metrics) -> list[tuple[str, Measure, list[Figure | float | None]]]:
    """Return every row of the table: its title, its measure, and the figures or what chance alone would show."""
    rows: list[tuple[str, Measure, list[Figure | float | None]]] = []
    for measure, figures in quality_series(metrics):
        rows.append((measure.title, measure, [*figures]))
        if any(isinstance(figure, Distance) for figure in figures):
            chance = [figure.chance if isinstance(figure, Distance) else None for figure in figures]
            rows.append((f"{measure.title}, by chance", measure, [*chance]))
    return rows
