"""What a careful reader has to know before believing the answer, in sentences.

Nothing here is an error: the run ended well, but its numbers mean less than they seem to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from promptgen.records import SOURCES, Interval, Metrics, PassRecord, Source
from promptgen.reporting.changes import share_change
from promptgen.reporting.fit_words import judgement
from promptgen.reporting.sections.answer import counted_again
from promptgen.reporting.sections.control import control_shares, preferred
from promptgen.reporting.sections.names import headline_label
from promptgen.reporting.sections.quality import cost_warnings, few_samples_warning
from promptgen.reporting.settings import Settings
from promptgen.reporting.text.formats import class_name, listing, number, percent

DISAGREEMENTS: Sequence[tuple[Source, Source, str]] = (
    ("classifier", "judge", "the flow may have learned to please its classifier, or one of the two errs more"),
    ("judge", "truth", "the judge errs by more than its interval, which covers sampling alone, can say"),
)
"""Who may disagree with whom, and what that means of a flow's samples."""

UNTRAINED: Final = "one of the two errs more; no flow was trained yet"
"""What it means when classifier and judge disagree on the generator alone."""


def warnings(metrics: Metrics) -> list[str]:
    """Return what a careful reader has to know before believing the answer; empty when there is nothing."""
    found = [*_unconfirmed(metrics), *_missing_passes(metrics), *_missing_judge(metrics), *_request(metrics)]
    for record in metrics.passes:
        found += [*_disagreements(metrics, record), *_loose_fit(record)]
    return [*found, *_uncorrectable(metrics), *cost_warnings(metrics), *few_samples_warning(metrics)]


def judge_warnings(settings: Settings) -> list[str]:
    """Return what is to be said of who counts, whatever was counted."""
    if not settings.judge_steers:
        return []
    return [
        f"The judge, {settings.judge}, took part in training, and a flow can learn to please it; name another model "
        "under debias.judge to have the shares checked."
    ]


def _unconfirmed(metrics: Metrics) -> Iterator[str]:
    """Yield a sentence if the count after the loop misses the target that the count which ended it contains."""
    again = metrics.confirmation
    if again and metrics.passes[-1].contains(metrics.target) and not again.contains(metrics.target):
        yield (
            f"Not confirmed. {counted_again(metrics, again)} The loop stops at the first count that contains the "
            "target, so that count is a little too favourable. Believe the later one."
        )


def _missing_passes(metrics: Metrics) -> Iterator[str]:
    numbers = [record.number for record in metrics.passes]
    missing = [str(number) for number in range(numbers[-1]) if number not in numbers]
    if missing:
        passes = "Pass" if len(missing) == 1 else "Passes"
        yield f"{passes} {listing(missing)} left no record, so nothing can be said of what came before the next one."


def _missing_judge(metrics: Metrics) -> Iterator[str]:
    if any(not record.shares.get("judge") for record in metrics.passes):
        yield (
            "No judge counted. All shares are those of the classifier that took part in training, which a flow can "
            "learn to please; name another classifier under debias.judge to have them checked."
        )


def _request(metrics: Metrics) -> Iterator[str]:
    """Yield a sentence per thing asked for that the control did not bring about, or that de-biasing lost again."""
    control = next((record for record in metrics.passes if record.kind == "control"), None)
    if control is None:
        return
    first, last = metrics.passes[0], metrics.passes[-1]
    before, asked, after = (
        {key: preferred(by) for key, by in control_shares(r).items()} for r in (first, control, last)
    )
    for key, share in asked.items():
        name = f"“{class_name(*key)}”"
        if control is not first and key in before and share_change(before[key], share).low <= 0:
            alone = f"{percent(share.value)} against {percent(before[key].value)} for the generator alone"
            yield f"Pass {control.number}: asking did not make {name} measurably more frequent: {alone}."
        if last is not control and key in after and share_change(share, after[key]).high < 0:
            fell = f"from {percent(share.value)} to {percent(after[key].value)}"
            yield f"Pass {last.number}: de-biasing lost part of the request: {name} fell {fell}."


def _disagreements(metrics: Metrics, record: PassRecord) -> Iterator[str]:
    """Yield a sentence per class that two counters see differently, beyond both intervals."""
    labels = [headline_label(metrics)] if len(metrics.target) == 2 else list(metrics.target)
    counted = {(metrics.attribute, label): _by_source(record, label) for label in labels} | control_shares(record)
    for one, other, meaning in DISAGREEMENTS:
        for key, shares in counted.items():
            if one in shares and other in shares and not shares[one].overlaps(shares[other]):
                told = UNTRAINED if record.kind == "generator" and one == "classifier" else meaning
                where = f"Pass {record.number}: {one} and {other} disagree on {class_name(*key)} beyond their intervals"
                yield f"{where}, {percent(shares[one].value)} against {percent(shares[other].value)}: {told}."


def _by_source(record: PassRecord, label: str) -> dict[Source, Interval]:
    """Return the share of a class by everyone who counted it."""
    shares = {source: record.share(source, label) for source in SOURCES}
    return {source: share for source, share in shares.items() if share is not None}


def _loose_fit(record: PassRecord) -> Iterator[str]:
    if record.fit and judgement(record.fit) == "loose":
        ess, gap = record.fit.ess_fraction.value, record.fit.kl_gap.value
        numbers = f"effective sample size {percent(ess)}, gap {number(gap)} nats"
        yield (
            f"Pass {record.number}: the flow is far from the exact distribution it was trained for ({numbers}). "
            "The shares are measured on what it really makes, and hold for that."
        )


def _uncorrectable(metrics: Metrics) -> Iterator[str]:
    """Yield a sentence per counter and its labels whose counts its confusion table cannot explain."""
    found: dict[tuple[Source, tuple[str, ...]], list[str]] = {}
    for record in metrics.counts:
        where = f"pass {record.number}{', counted again' if record is metrics.confirmation else ''}"
        for source, labels in record.uncorrectable.items():
            if labels:
                found.setdefault((source, tuple(labels)), []).append(where)
    for (source, named), places in found.items():
        classes = listing([class_name(metrics.attribute, label) for label in named])
        yield (
            f"The confusion table of the {source} does not hold for these samples: no true shares could have made it "
            f"count so much or so little {classes} ({'; '.join(places)}). It errs here otherwise than on the labelled "
            "images of its table, so its corrected shares mean little, and its counts may be off as well."
        )
