"""The warnings of the report: reasons to doubt the answer.

A warning is not an error: the run completed, but its numbers mean less than they seem to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from promptgen.records import Interval, Metrics, PassRecord, Source, requested_shares
from promptgen.reporting.sections.answer import confirming_count
from promptgen.reporting.sections.control import preferred
from promptgen.reporting.sections.names import headline_label, judgement
from promptgen.reporting.sections.quality import cost_warnings, few_samples_warning
from promptgen.reporting.settings import Settings
from promptgen.reporting.text.formats import class_name, listing, number, percent

DISAGREEMENTS: Sequence[tuple[Source, Source, str]] = (
    ("classifier", "judge", "the flow may have learned to please its classifier, or one of the two makes more errors"),
    ("judge", "truth", "the judge’s error is larger than its interval, which covers sampling error only"),
)
"""Pairs of sources that may disagree, and what a disagreement on a flow's samples means."""

UNTRAINED: Final = "one of the two makes more errors; no flow has been trained yet"
"""What a disagreement of classifier and judge on the generator alone means."""


def warnings(metrics: Metrics) -> list[str]:
    """Return the reasons to doubt the answer, a sentence each; empty if there are none."""
    sentences = [*_unconfirmed(metrics), *_request(metrics)]
    for record in metrics.passes:
        sentences += [*_disagreements(metrics, record), *_loose_fit(record), *_distrusted(record)]
    return [*sentences, *_uncorrectable(metrics), *cost_warnings(metrics), *few_samples_warning(metrics)]


def judge_warnings(settings: Settings) -> list[str]:
    """Return a warning if the judge is not independent of training."""
    if not settings.judge_steers:
        return []
    return [
        f"The judge, {settings.judge}, took part in training, so a flow can learn to please it. Set debias.judge to "
        "another model, so that the shares are checked."
    ]


def _unconfirmed(metrics: Metrics) -> Iterator[str]:
    """Yield a warning if the confirming count misses the target that the count which ended the loop contains."""
    again = metrics.confirmation
    if again and metrics.passes[-1].contains_target and not again.contains_target:
        yield (
            f"Not confirmed. {confirming_count(metrics, again)} The loop stops at the first count that contains the "
            "target, so that count is slightly too favourable. Trust the confirming count."
        )


def _request(metrics: Metrics) -> Iterator[str]:
    """Yield a warning per requested class that the control did not make more frequent, or that de-biasing lost."""
    first, last = metrics.passes[0], metrics.passes[-1]
    control = next((record for record in metrics.passes if record.kind == "control"), None)
    if control is None:
        return
    before, requested, after = (
        {key: preferred(by) for key, by in requested_shares(record.control).items()}
        for record in (first, control, last)
    )
    gained, lost = _request_changes(control, since=first.number), _request_changes(last, since=control.number)
    for key, share in requested.items():
        name = f"“{class_name(*key)}”"
        if key in gained and gained[key].low <= 0:
            alone = f"{percent(share.value)} compared with {percent(before[key].value)} for the generator alone"
            yield f"Pass {control.number}: the request did not make {name} measurably more frequent: {alone}."
        if key in lost and lost[key].high < 0:
            fell = f"from {percent(share.value)} to {percent(after[key].value)}"
            yield f"Pass {last.number}: de-biasing lost part of the request: {name} fell {fell}."


def _request_changes(record: PassRecord, since: int) -> dict[tuple[str, str], Interval]:
    """Return how the share of each requested class has changed since an earlier pass."""
    change = record.change(since)
    return {key: preferred(by) for key, by in requested_shares(change.control).items()} if change else {}


def _disagreements(metrics: Metrics, record: PassRecord) -> Iterator[str]:
    """Yield a warning per class whose intervals by two sources do not overlap."""
    labels = [headline_label(metrics)] if len(metrics.target) == 2 else list(metrics.target)
    shares_by_class = {
        (metrics.attribute, label): {source: reader.shares[label] for source, reader in record.by.items()}
        for label in labels
    } | requested_shares(record.control)
    for one, other, meaning in DISAGREEMENTS:
        for key, shares in shares_by_class.items():
            if one in shares and other in shares and not shares[one].overlaps(shares[other]):
                reason = UNTRAINED if record.kind == "generator" and one == "classifier" else meaning
                where = f"Pass {record.number}: {one} and {other} disagree on {class_name(*key)} beyond their intervals"
                yield f"{where}, {percent(shares[one].value)} and {percent(shares[other].value)}: {reason}."


def _distrusted(record: PassRecord) -> Iterator[str]:
    """Yield a warning if the surrogate that the flow was trained on was wrong about it."""
    if record.fit and record.reuse and not record.reuse.trusts(record.fit):
        expected, true = record.reuse.expected_ess, record.fit.ess_fraction.value
        yield (
            f"Pass {record.number}: the surrogate cannot be trusted: it expects an effective sample size of "
            f"{percent(expected)}, and the images have {percent(true)}. Raise training.budget, or set training.method "
            "to on_policy."
        )


def _loose_fit(record: PassRecord) -> Iterator[str]:
    if record.fit and judgement(record.fit) == "loose":
        ess, gap = record.fit.ess_fraction.value, record.fit.kl_gap.value
        numbers = f"effective sample size {percent(ess)}, gap {number(gap)} nats"
        yield (
            f"Pass {record.number}: the flow is far from the exact distribution it was trained for ({numbers}). "
            "The shares are measured on the images it actually generates, and hold for these."
        )


def _uncorrectable(metrics: Metrics) -> Iterator[str]:
    """Yield a warning per source and set of labels whose counts the source's confusion table cannot explain."""
    places: dict[tuple[Source, tuple[str, ...]], list[str]] = {}
    for count in metrics.counts:
        where = f"pass {count.number}{', confirming count' if count is metrics.confirmation else ''}"
        for source, reader in count.by.items():
            if reader.uncorrectable:
                places.setdefault((source, tuple(reader.uncorrectable)), []).append(where)
    for (source, labels), passes in places.items():
        classes = listing([class_name(metrics.attribute, label) for label in labels])
        yield (
            f"The confusion table of the {source} does not apply to these samples: no true shares could produce its "
            f"counts of {classes} ({'; '.join(passes)}). It errs differently here than on the labelled images of its "
            "table, so its corrected shares mean little, and its counts may be wrong as well."
        )
