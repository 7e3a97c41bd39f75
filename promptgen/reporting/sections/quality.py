"""Whether control and de-biasing cost quality or variety: the figures in sentences, and what is to be warned of.

A flow only chooses among what its generator makes. A control is meant to choose, so that less recall, less different
identities and a Frechet distance above chance are no fault of it. A de-biasing pass moves shares within what the
control has left, and should leave no less of it: if it does, faces repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from promptgen.records import Interval, Metrics, PassRecord, Quality
from promptgen.reporting.sections.control import DIVERSITY
from promptgen.reporting.text.formats import brief, listing, number, percent

COLLAPSE = "a sign of collapse, unless the target itself asks for less variety. Look for faces that repeat"
COSTS = {
    "precision": "fewer of its samples look like something the generator makes. Look for faults in its pictures",
    "recall": f"its samples cover less of what the generator makes, {COLLAPSE}",
    "identity diversity": f"its samples are less unlike each other, {COLLAPSE}",
}
"""What it means that a figure fell in a de-biasing pass."""


@dataclass(frozen=True)
class Fall:
    """A figure of quality or variety that is lower than in the pass before, beyond both intervals."""

    figure: str
    before: Interval
    after: Interval

    def __str__(self) -> str:
        """Return the fall in words, such as "recall fell from 71.0 % to 23.0 %"."""
        shown = number if self.figure == "identity diversity" else percent
        return f"{self.figure} fell from {shown(self.before.value)} to {shown(self.after.value)}"


def falls(before: PassRecord, after: PassRecord) -> list[Fall]:
    """Return every figure of quality and variety that clearly fell from one pass to the next."""
    pairs: dict[str, tuple[Interval | None, Interval | None]] = {
        **{
            name: (getattr(before.quality, name, None), getattr(after.quality, name, None))
            for name in ("precision", "recall")
        },
        "identity diversity": (before.control.get(DIVERSITY), after.control.get(DIVERSITY)),
    }
    return [Fall(name, high, low) for name, (high, low) in pairs.items() if high and low and low.high < high.low]


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
    if quality.frechet <= quality.frechet_chance:
        return "Their Frechet distance is no more than chance alone shows."
    ratio = quality.frechet / quality.frechet_chance
    times = f"{brief(ratio)} times what chance alone shows"
    return f"Their Frechet distance is {times}."


def quality_rows(metrics: Metrics) -> list[tuple[str, list[Interval | float | None]]]:
    """Return every figure of quality and variety that some pass has, by its term in the glossary, pass by pass."""
    qualities = [record.quality for record in metrics.passes]
    rows: dict[str, list[Interval | float | None]] = {
        "Precision": [each.precision if each else None for each in qualities],
        "Recall": [each.recall if each else None for each in qualities],
        "Identity diversity": [record.control.get(DIVERSITY) for record in metrics.passes],
        "Frechet distance": [each.frechet if each else None for each in qualities],
        "Frechet distance, by chance": [each.frechet_chance if each else None for each in qualities],
        "Kernel distance": [each.kernel if each else None for each in qualities],
    }
    return [(title, row) for title, row in rows.items() if any(cell is not None for cell in row)]
