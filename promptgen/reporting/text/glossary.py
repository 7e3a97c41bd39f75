"""What every number of the report means, in one line that needs no statistics; the page puts it beside the number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

DISTANCES: Final[dict[str, str]] = {
    "kl": "KL, nats",
    "total_variation": "Total variation",
    "discrepancy": "Discrepancy",
}
"""What the distances of `promptgen.metrics.bias` are called."""


@dataclass(frozen=True)
class Measure:
    """A measure of quality or variety, as the page shows it.

    Attributes:
        title: what it is called.
        meaning: what it means, in one line.
        unit: whether it is a share of the samples or a plain number.
        drawn: whether it has a panel of its own, pass by pass.
        small: whether it may be near zero, so that four decimals are not enough.
        how: estimator and interval, for a statistician; empty where `promptgen.reporting.sections.methods` tells more.
    """

    title: str
    meaning: str
    unit: Literal["share", "number"] = "number"
    drawn: bool = False
    small: bool = False
    how: str = ""


MEASURES: Final[dict[str, Measure]] = {
    "precision": Measure(
        "Precision", "Share of these samples that look like something the generator makes.", "share", drawn=True
    ),
    "recall": Measure(
        "Recall", "Share of what the generator makes that these samples still cover.", "share", drawn=True
    ),
    "identity_diversity": Measure(
        "Identity diversity",
        "How unlike two of these faces are on average. A fall means that faces repeat.",
        drawn=True,
    ),
    "frechet": Measure(
        "Frechet distance",
        "How far the samples as a whole are from the generator’s own, as a network sees them.",
        drawn=True,
    ),
    "kernel": Measure(
        "Kernel distance", "The same by another measure, which is 0 on average if nothing has moved.", small=True
    ),
    "vendi": Measure(
        "Vendi score",
        "How many samples with nothing in common these are worth. A fall means that samples repeat.",
        drawn=True,
        how="exp of the Shannon entropy of the eigenvalues of the cosine kernel over N, of all samples of the pass; "
        "normal interval of its log by the delta method. It depends on N: compare passes of one size.",
    ),
}
"""The measures in the order of the page, by their names in `promptgen.records.Quality`."""

MEANINGS: Final[dict[str, str]] = {
    # shares
    "Share": "Part of the samples that show this class.",
    "Target": "The share that is wanted.",
    "held against": "What the distances of a watched attribute are measured to. No flow was trained towards it.",
    "N": "How many samples were counted.",
    "classifier": "As the model that steers the de-biasing sees the samples. A flow can learn to please it.",
    "judge": "As the model sees them that decides whether the target is met.",
    "truth": "What the samples really have. Only the embedded world knows it.",
    "corrected": "The share if this counter never erred: the errors it made on labelled images, undone.",
    "mean probability": "The share if a doubtful picture counts in parts, by how sure the counter is.",
    # differences
    "Change from before": "How far the share is from that of the pass before, in percentage points.",
    "Change": "How far the number is from that of the pass before.",
    "p": "How often chance alone would make a difference at least so large if nothing had changed.",
    "changed": "Whether any share differs by more than chance explains. No sign is no proof that nothing changed.",
    "On target": "Yes if the interval of every share contains its target.",
    "Time": "All steps of the pass together.",
    # distances
    "KL, nats": "How far all shares together are from the target: 0 is the target; 60 : 40 for half and half is 0.020.",
    "Total variation": "Part of the samples that would have to change class to meet the target.",
    "Discrepancy": "The length of the straight line from the shares to the target (the fairness discrepancy).",
    "By chance alone": "What samples of exactly the target would show on average. So small a distance may be chance.",
    # quality
    **{measure.title: measure.meaning for measure in MEASURES.values()},
    "Frechet distance, by chance": "What as many samples of one and the same source would show.",
    "N against": "How many samples were compared with how many of the generator’s own; pass 0 with its other half.",
    # fits
    "log Z, estimate": "Constant of the wanted distribution. Its level says little; how near the bound is says much.",
    "log Z, lower bound": "What the flow reaches. It is never above log Z, and the closer the better.",
    "Gap (KL), nats": "Their difference: how far the flow is from the wanted distribution. 0 is a perfect fit.",
    "Effective samples": "What is left of the sample size when samples are weighted to be exact. 100 % is perfect.",
    "Tail index": "How few samples decide: up to 0.5 the fit’s numbers are good, up to about 0.7 usable, then unsure.",
    "The weights are": "The same in words.",
    # multipliers
    "Share before": "Share in the pass before, as the classifier reads it.",
    "Multiplier, solved": "How hard a class is pushed: its weight is multiplied by e to this power. 0 leaves it alone.",
    "Multiplier, after training": "The same once the flow’s own shares were right.",
    # time and work
    "fit_moments": "Solving the multipliers.",
    "train_flow": "Training the flow.",
    "sample": "Making and reading the samples that are counted.",
    "evaluate": "Counting them, and all other figures.",
    "estimate_bias": "Holding the shares against the target, and deciding whether to go on.",
    "confirm": "Making the samples that the last pass is counted on again.",
    "images made": "By the generator, in all steps of the pass.",
    "of these, with a gradient": "Images that a flow learned from, which cost several times as much.",
}
"""By what stands at the head of a column or row."""
