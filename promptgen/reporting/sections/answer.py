"""The headline of the report, which never rounds a failure into a success, and the sentences below it.

All functions are pure: they take numbers and return plain text, which the page escapes.
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
    "fit": "multipliers that would correct it were fitted, but no flow was trained with them",
    "measure": "de-biasing was not requested",
}
"""Why the last pass is not a de-biasing pass, by the setting of de-biasing."""

BY_CHANCE = {
    True: "no larger than chance in both samples explains",
    False: "larger than chance in both samples explains",
}
"""How far a count is from a target that was itself counted, by whether it is on target."""


def answer(metrics: Metrics, settings: Settings) -> str:
    """Return the outcome of the run in one sentence; a success requires every count of the last pass to confirm it."""
    last = metrics.passes[-1]
    verdict = _verdict(metrics, last, settings)
    if last.kind != "debias":
        return f"{_opening(metrics, settings)}; {verdict}."
    rounds = sum(record.kind == "debias" for record in metrics.passes)
    what = "de-biasing" if rounds == 1 else f"{rounds}\u00a0de-biasing passes"
    counts = [last, *([metrics.confirmation] if metrics.confirmation else [])]
    brought = "brought it to" if all(result.contains_target for result in counts) else "left it at"
    return f"{_opening(metrics, settings)}; {what} {brought} {_amount(metrics, last)}, and {verdict}."


def _opening(metrics: Metrics, settings: Settings) -> str:
    """Return the share of the generator alone, or the effect of the control on it."""
    first, asked = metrics.passes[0], settings.asked
    control = next((record for record in metrics.passes if record.kind == "control"), None)
    is_pair, before = len(metrics.target) == 2, _amount(metrics, first)
    subject = f"the distance from the target shares of {metrics.attribute}"
    if is_pair:
        subject = class_name(metrics.attribute, headline_label(metrics))
    if control is None and is_pair:
        return f"The generator alone has {subject} at {before}"
    if control is None:
        return f"The generator alone is {before} from the target shares of {metrics.attribute}"
    moved = "moved" if _moved(metrics, control) else "did not measurably move"
    return f"Asking for {asked} {moved} {subject} from {before} to {_amount(metrics, control)}"


def _amount(metrics: Metrics, record: PassRecord) -> str:
    if len(metrics.target) == 2:
        return percent(record.trusted.shares[headline_label(metrics)].value, 0)
    return f"{number(record.trusted.kl.value)} nats"


def _moved(metrics: Metrics, record: PassRecord) -> bool:
    """Return whether the subject of the headline has moved since the first pass by more than chance explains."""
    change = record.change(since=metrics.passes[0].number)
    if change is None:
        return False
    moved = change.by[record.source]
    difference = moved.shares[headline_label(metrics)] if len(metrics.target) == 2 else moved.distances["kl"]
    return not difference.contains(0)


def _verdict(metrics: Metrics, last: PassRecord, settings: Settings) -> str:
    """Return whether the judge counts the last pass as on target; if not, whether de-biasing was tried."""
    reached, again = last.contains_target, metrics.confirmation
    goal = wanted(metrics.target[headline_label(metrics)])
    if last.trusted.from_target is not None:
        of = f" of {goal}" if len(metrics.target) == 2 else ""
        verdict = f"its distance from the target{of} is {BY_CHANCE[reached]}"
    elif len(metrics.target) == 2:
        verdict = f"the judge’s confidence interval {'contains' if reached else 'misses'} the target of {goal}"
    elif reached:
        verdict = "all confidence intervals of the judge contain their targets"
    else:
        verdict = "some confidence intervals of the judge miss their targets"
    if reached and again and not again.contains_target:
        misses = "misses it" if len(metrics.target) == 2 else "has intervals that miss theirs"
        misses = misses if again.trusted.from_target is None else "misses the target"
        return f"{verdict}, but the confirming count {misses}"
    if reached or last.kind == "debias":
        return verdict
    return f"{verdict}, and {UNTRIED[settings.debias]}"


def context(metrics: Metrics, settings: Settings) -> list[str]:
    """Return the sentences under the headline: judge, sample size, last share, confirming count and request."""
    last, again, label = metrics.passes[-1], metrics.confirmation, headline_label(metrics)
    independent = "a classifier that took no part in training"
    judge = "the judge, which also took part in training" if settings.judge_steers else f"the judge, {independent}"
    share, truth = last.trusted.shares[label], last.share("truth", label)
    interval = f"{wanted(settings.confidence)} confidence interval {percent_range(share.low, share.high)}"
    truth_clause = f"; the truth, known for this generator, is {percent(truth.value)}" if truth else ""
    sentences = [
        f"Shares are measured by {judge}, on {count(last.n)} fresh samples per pass.",
        f"The last pass has {class_name(metrics.attribute, label)} at {percent(share.value)} "
        f"({interval}){truth_clause}.",
        *([confirming_count(metrics, again)] if again else []),
    ]
    return sentences if last.kind == "generator" else [*sentences, *_shown(metrics.passes[0], last)]


def confirming_count(metrics: Metrics, again: Confirmation) -> str:
    """Return the result of the confirming count, and whether it differs from the count that ended the loop."""
    reached = again.contains_target
    ending = "which contains the target" if reached else "which misses the target"
    if len(metrics.target) > 2:
        ending = "all intervals contain their targets" if reached else "some intervals miss their targets"
    if again.trusted.from_target is not None:
        ending = f"whose distance from the target is {BY_CHANCE[reached]}"
    if reached and not metrics.passes[-1].contains_target:
        ending += "; the first count misses it, so the two counts disagree and the share may still be off target"
    figure = _figure(metrics, again)
    return f"Confirming count on {count(again.n)} samples drawn after the loop ended: {figure}, {ending}."


def _figure(metrics: Metrics, record: Count) -> str:
    """Return the headline figure of a count with its interval: one share of two, or the distance of many."""
    if len(metrics.target) == 2:
        share = record.trusted.shares[headline_label(metrics)]
        return f"{percent(share.value)} ({percent_range(share.low, share.high)})"
    kl = record.trusted.kl
    return f"{number(kl.value)} nats from the target ({number_range(kl.low, kl.high)})"


def _shown(first: PassRecord, last: PassRecord) -> Iterator[str]:
    """Yield a sentence per requested class: its share in the last pass, and its share in the generator alone."""
    before = requested_shares(first.control)
    for key, by_source in requested_shares(last.control).items():
        alone = f" (the generator alone: {percent(preferred(before[key]).value)})" if key in before else ""
        share = percent(preferred(by_source).value)
        yield f"{share} of its samples show the requested class, {class_name(*key)}{alone}."
