"""The outcome of a run in a sentence, which never rounds a failure into a success, and what stands below it.

Every function is pure: numbers in, plain text out. The page escapes the text.
"""

from __future__ import annotations

from collections.abc import Iterator

from promptgen.records import Confirmation, Count, Metrics, PassRecord, requested_shares
from promptgen.reporting.sections.control import preferred
from promptgen.reporting.sections.names import headline_label
from promptgen.reporting.settings import Settings
from promptgen.reporting.text.formats import class_name, count, number, number_range, percent, percent_range, wanted

UNTRIED = {
    "train": "no de-biasing pass has been run",
    "fit": "the multipliers that would move it were fitted, without a flow that follows them",
    "measure": "no de-biasing was asked for",
}
"""Why the last pass is no de-biasing one, by what was asked of de-biasing."""


def answer(metrics: Metrics, settings: Settings) -> str:
    """Return the outcome of the run in one sentence; a success has to stand in every count of the last pass."""
    last = metrics.passes[-1]
    verdict = _verdict(metrics, last, settings)
    if last.kind != "debias":
        return f"{_opening(metrics, settings)}; {verdict}."
    rounds = sum(record.kind == "debias" for record in metrics.passes)
    what = "de-biasing" if rounds == 1 else f"{rounds}\u00a0passes of de-biasing"
    counts = [last, *([metrics.confirmation] if metrics.confirmation else [])]
    brought = "brought it to" if all(each.contains_target for each in counts) else "left it at"
    return f"{_opening(metrics, settings)}; {what} {brought} {_amount(metrics, last)}, and {verdict}."


def _opening(metrics: Metrics, settings: Settings) -> str:
    """Return what the generator does of itself, or what control did to it."""
    first, asked = metrics.passes[0], settings.asked
    control = next((record for record in metrics.passes if record.kind == "control"), None)
    subject, before = _subject(metrics), _amount(metrics, first)
    if control is None:
        return f"The generator alone puts {subject} at {before}"
    moved = "moved" if _moved(metrics, control) else "did not measurably move"
    return f"Asking for {asked} {moved} {subject} from {before} to {_amount(metrics, control)}"


def _subject(metrics: Metrics) -> str:
    """Return what the sentence follows: one share of two, or the distance of many shares from their target."""
    if len(metrics.target) == 2:
        return class_name(metrics.attribute, headline_label(metrics))
    return f"{metrics.attribute}, as its distance from the target,"


def _amount(metrics: Metrics, record: PassRecord) -> str:
    if len(metrics.target) == 2:
        return percent(record.trusted.shares[headline_label(metrics)].value, 0)
    return f"{number(record.trusted.kl.value)} nats"


def _moved(metrics: Metrics, record: PassRecord) -> bool:
    """Tell whether what the sentence follows has moved since the first pass by more than chance explains."""
    change = record.change(since=metrics.passes[0].number)
    if change is None:
        return False
    moved = change.by[record.source]
    headline = moved.shares[headline_label(metrics)] if len(metrics.target) == 2 else moved.distances["kl"]
    return not headline.contains(0)


def _verdict(metrics: Metrics, last: PassRecord, settings: Settings) -> str:
    """Return whether the last pass reached the target, by the judge's count; if not, whether de-biasing was tried."""
    reached, again = last.contains_target, metrics.confirmation
    if len(metrics.target) == 2:
        goal = wanted(metrics.target[headline_label(metrics)])
        verdict = f"the judge’s interval {'contains' if reached else 'misses'} the target of {goal}"
    elif reached:
        verdict = "every interval of the judge contains its target"
    else:
        verdict = "some intervals of the judge miss their targets"
    if reached and again and not again.contains_target:
        misses = "misses it" if len(metrics.target) == 2 else "some miss it"
        return f"{verdict}, but {misses} when counted again"
    if reached or last.kind == "debias":
        return verdict
    return f"{verdict}, and {UNTRIED[settings.debias]}"


def context(metrics: Metrics, settings: Settings) -> list[str]:
    """Return the sentences under the answer: who counted, how many, what truth says, what became of the request."""
    last, again, label = metrics.passes[-1], metrics.confirmation, headline_label(metrics)
    judge = "also took part in training" if settings.judge_steers else "took no part in training"
    who = f"the judge, which {judge}" if settings.judge_steers else f"the judge, a classifier that {judge}"
    share, truth = last.trusted.shares[label], last.share("truth", label)
    interval = f"{wanted(settings.confidence)} interval {percent_range(share.low, share.high)}"
    known = f"; by truth, which this generator knows, at {percent(truth.value)}" if truth else ""
    sentences = [
        f"Counted by {who}, on {count(last.n)} fresh samples per pass.",
        f"The last pass has {class_name(metrics.attribute, label)} at {percent(share.value)} ({interval}){known}.",
        *([counted_again(metrics, again)] if again else []),
    ]
    return sentences if last.kind == "generator" else [*sentences, *_shown(metrics.passes[0], last)]


def counted_again(metrics: Metrics, again: Confirmation) -> str:
    """Return what the count after the loop found, and whether that differs from the one that ended it."""
    reached = again.contains_target
    ending = "which contains the target" if reached else "which misses the target"
    if len(metrics.target) > 2:
        ending = "every interval contains its target" if reached else "some intervals miss their targets"
    if reached and not metrics.passes[-1].contains_target:
        ending += "; the first count did not, so the share lies at the edge of what can be told"
    figure = _figure(metrics, again)
    return f"Counted again on {count(again.n)} samples drawn after the loop had ended: {figure}, {ending}."


def _figure(metrics: Metrics, record: Count) -> str:
    """Return the headline figure of a count with its interval: one share of two, or the distance of many."""
    if len(metrics.target) == 2:
        share = record.trusted.shares[headline_label(metrics)]
        return f"{percent(share.value)} ({percent_range(share.low, share.high)})"
    kl = record.trusted.kl
    return f"{number(kl.value)} nats from the target ({number_range(kl.low, kl.high)})"


def _shown(first: PassRecord, last: PassRecord) -> Iterator[str]:
    """Yield a sentence per thing asked for: how many of the last samples show it, and how many did without asking."""
    before = requested_shares(first.control)
    for key, by_source in requested_shares(last.control).items():
        alone = f" (the generator alone: {percent(preferred(before[key]).value)})" if key in before else ""
        share = percent(preferred(by_source).value)
        yield f"{share} of its samples show what was asked for, {class_name(*key)}{alone}."
