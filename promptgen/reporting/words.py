"""The sentences of the report: what the numbers mean, also when the loop did not reach its target.

Every function is pure: numbers in, plain text out. The page escapes the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import degrees

from promptgen.energies.pose import EULER
from promptgen.reporting.formats import class_name, count, listing, number, percent, percent_range, wanted
from promptgen.reporting.records import SOURCES, Fit, Interval, Metrics, PassRecord, Settings, Source

# Least effective sample size (a fraction) and largest gap (nats) of a fit that is called so: a judgement, no theorem.
CLOSE = (0.3, 1.0)
ROUGH = (0.05, 3.0)

MEASURES = {
    "identity.diversity": (
        "Identity diversity",
        "Mean distance between the identities of two samples; a fall would mean that faces repeat.",
    ),
    "identity.within": (
        "Identity, same latent",
        "Mean distance of two pictures of one latent under two conditions; small when a face stays the same one.",
    ),
    "identity.between": (
        "Identity, other latent",
        "Mean distance of two pictures of different latents: what the distance of the same latent is held against.",
    ),
    "pose.error": (
        "Pose error, degrees",
        "Mean angle between the pose seen and the one asked for; the generator alone does not hear what is asked.",
    ),
}
"""Title and meaning of what is watched besides shares."""


TRUST = {
    "good": "The weights have a light tail, so these numbers hold.",
    "usable": "Few samples carry much of the weight, so take these numbers as rough.",
    "not to be trusted": "A handful of samples decides, so these numbers may be far off, whatever their intervals say.",
}
"""What the tail of a fit's weights means for its numbers."""

UNTRIED = {
    "train": "no de-biasing pass has been run",
    "fit": "the multipliers that would move it were fitted, without a flow that follows them",
    "measure": "no de-biasing was asked for",
}
"""Why the last pass is no de-biasing one, by what was asked of de-biasing."""


def target_words(metrics: Metrics) -> str:
    """Return the target in words, such as "50 % short hair and 50 % long hair"."""
    named = {class_name(metrics.attribute, label): share for label, share in metrics.target.items()}
    return listing([f"{wanted(share)} {name}" for name, share in named.items()])


def pass_words(record: PassRecord, settings: Settings) -> str:
    """Return what made the samples of a pass, in a few words."""
    if record.kind == "control":
        return f"Controlled: {settings.asked}"
    return "The generator alone" if record.kind == "generator" else "De-biased"


def pass_kind(record: PassRecord) -> str:
    """Return a pass's kind in one word, for the axis of a figure."""
    return {"generator": "generator", "control": "control", "debias": "de-biased"}[record.kind]


def goal_words(record: PassRecord, settings: Settings) -> str:
    """Return what the flow of a pass was trained for."""
    if record.kind == "control":
        return f"A flow on the generator’s latents, trained to show {settings.asked} and else to change little."
    return "One more flow below what was there, trained to meet the target shares and else to change little."


def headline_label(metrics: Metrics) -> str:
    """Return the class the story is told with: the one that control made more frequent, more than any other.

    Without a control pass it is the class that lies furthest above its target in the first pass.
    """
    first = metrics.passes[0]
    control = next((record for record in metrics.passes if record.kind == "control" and record is not first), None)
    if control is None:
        return max(metrics.target, key=lambda label: first.counted[label].value - metrics.target[label])
    return max(metrics.target, key=lambda label: control.counted[label].value - first.counted[label].value)


def on_target(metrics: Metrics, record: PassRecord) -> bool:
    """Tell whether every share of the pass has its target within its interval, as counted by the judge."""
    return all(record.counted[label].contains(goal) for label, goal in metrics.target.items())


def answer(metrics: Metrics, settings: Settings) -> str:
    """Return the outcome of the run in one sentence, which never rounds a failure into a success."""
    last = metrics.passes[-1]
    verdict = _verdict(metrics, last, settings)
    if last.kind != "debias":
        return f"{_opening(metrics, settings)}; {verdict}."
    rounds = sum(record.kind == "debias" for record in metrics.passes)
    what = "de-biasing" if rounds == 1 else f"{rounds}\u00a0passes of de-biasing"
    brought = "brought it to" if on_target(metrics, last) else "left it at"
    return f"{_opening(metrics, settings)}; {what} {brought} {_amount(metrics, last)}, and {verdict}."


def _opening(metrics: Metrics, settings: Settings) -> str:
    """Return what the generator does of itself, or what control did to it."""
    first, asked = metrics.passes[0], settings.asked
    control = next((record for record in metrics.passes if record.kind == "control"), None)
    subject, before = _subject(metrics), _amount(metrics, first)
    if control is None:
        return f"The generator alone puts {subject} at {before}"
    if control is first:
        return f"Asked for {asked}, the generator puts {subject} at {before}"
    moved = "moved" if _differ(metrics, first, control) else "did not measurably move"
    return f"Asking for {asked} {moved} {subject} from {before} to {_amount(metrics, control)}"


def _subject(metrics: Metrics) -> str:
    """Return what the sentence follows: one share of two, or the distance of many shares from their target."""
    if len(metrics.target) == 2:
        return class_name(metrics.attribute, headline_label(metrics))
    return f"{metrics.attribute}, as its distance from the target,"


def _amount(metrics: Metrics, record: PassRecord) -> str:
    if len(metrics.target) == 2:
        return percent(record.counted[headline_label(metrics)].value, 0)
    return f"{number(record.distance.value if record.distance else None)} nats"


def _differ(metrics: Metrics, before: PassRecord, after: PassRecord) -> bool:
    """Tell whether some share moved further than both intervals allow, as counted by the judge."""
    return any(not before.counted[label].overlaps(after.counted[label]) for label in metrics.target)


def _verdict(metrics: Metrics, last: PassRecord, settings: Settings) -> str:
    """Return whether the last pass reached the target, by whose count; if not, whether de-biasing was tried."""
    reached = on_target(metrics, last)
    if len(metrics.target) == 2:
        goal = wanted(metrics.target[headline_label(metrics)])
        verdict = f"the {last.counter}’s interval {'contains' if reached else 'misses'} the target of {goal}"
    elif reached:
        verdict = f"every interval of the {last.counter} contains its target"
    else:
        verdict = f"some intervals of the {last.counter} miss their targets"
    if reached or last.kind == "debias":
        return verdict
    return f"{verdict}, and {UNTRIED[settings.debias]}"


def context(metrics: Metrics, settings: Settings) -> list[str]:
    """Return the sentences under the answer: who counted, how many, what truth says, what became of the request."""
    last = metrics.passes[-1]
    name = class_name(metrics.attribute, headline_label(metrics))
    who = {
        "judge": "the judge, which also took part in training"
        if settings.judge_steers
        else "the judge, a classifier that took no part in training",
        "classifier": "the classifier that also took part in training, since there is no judge",
    }[last.counter]
    share, truth = last.counted[headline_label(metrics)], last.share("truth", headline_label(metrics))
    interval = f"{wanted(settings.confidence)} interval {percent_range(share.low, share.high)}"
    known = f"; by truth, which this generator knows, at {percent(truth.value)}" if truth is not None else ""
    sentences = [
        f"Counted by {who}, on {count(last.n)} fresh samples per pass.",
        f"The last pass has {name} at {percent(share.value)} ({interval}){known}.",
    ]
    return sentences if last.kind == "generator" else [*sentences, *_shown(metrics.passes[0], last)]


def _shown(first: PassRecord, last: PassRecord) -> Iterator[str]:
    """Yield a sentence per thing asked for: how many of the last samples show it, and how many did without asking."""
    before = control_shares(first)
    for key, by_source in control_shares(last).items():
        alone = f" (the generator alone: {percent(preferred(before[key]).value)})" if key in before else ""
        share = percent(preferred(by_source).value)
        yield f"{share} of its samples show what was asked for, {class_name(*key)}{alone}."


def control_shares(record: PassRecord) -> dict[tuple[str, str], dict[Source, Interval]]:
    """Return the shares of what the control asks for, by (attribute, label) and source, from "makeup.without.judge"."""
    found: dict[tuple[str, str], dict[Source, Interval]] = {}
    for name, interval in record.control.items():
        *key, last = name.split(".")
        for source in SOURCES:
            if len(key) == 2 and source == last:
                found.setdefault((key[0], key[1]), {})[source] = interval
    return found


def preferred(by_source: dict[Source, Interval]) -> Interval:
    """Return the judge's number, or the classifier's or truth's when there is no judge."""
    return next(by_source[source] for source in ("judge", "classifier", "truth") if source in by_source)


def other_measures(record: PassRecord) -> dict[str, Interval]:
    """Return the control measures that are not shares of a class, such as "identity.diversity"."""
    return {name: value for name, value in record.control.items() if name.split(".")[-1] not in SOURCES}


def measure_words(name: str) -> tuple[str, str]:
    """Return the title of one of `other_measures`, and a sentence on what it means.

    Args:
        name: such as "identity.diversity" or "pose.yaw.slope".
    """
    if name in MEASURES:
        return MEASURES[name]
    kind, _, rest = name.partition(".")
    if kind == "pose" and rest.endswith(".slope"):
        angle = rest.removesuffix(".slope")
        return (
            f"How far {angle} is followed",
            f"Slope of the {angle} seen on the one asked for: 1 wholly, 0 not at all.",
        )
    title = name.replace(".", " ")
    return title[:1].upper() + title[1:], "A further measure of the control."


def range_words(name: str, low: float, high: float) -> str:
    """Return the range of a coordinate of the condition; the angles of a pose, radians, in degrees."""
    if name in EULER:
        return f"{name}, {degrees(low):.0f}° to {degrees(high):.0f}°".replace("-", "−")
    return f"{name}, {number(low)} to {number(high)}"


def fit_words(fit: Fit) -> str:
    """Return what a fit means in plain words, and how far it can be relied on."""
    worth = f"{count(fit.n)} samples are worth {count(round(fit.ess_fraction.value * fit.n))}"
    exact = "weighted so that they follow the wanted distribution exactly"
    return f"A {judgement(fit)} fit: {exact}, {worth}. {TRUST[fit.trust]}"


def judgement(fit: Fit) -> str:
    """Return how close a fit is in one word: close, rough or loose."""
    for word, (least, largest) in (("close", CLOSE), ("rough", ROUGH)):
        if fit.ess_fraction.value >= least and fit.kl_gap.value <= largest:
            return word
    return "loose"
