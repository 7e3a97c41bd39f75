"""The meaning of every number of the report, in one line without statistics; the page shows it beside the number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from promptgen.metrics.sizes import PAIRS

DISTANCES: Final[dict[str, str]] = {
    "kl": "KL, nats",
    "total_variation": "Total variation",
    "discrepancy": "Discrepancy",
}
"""Titles of the distances of `promptgen.metrics.bias`."""


@dataclass(frozen=True)
class Measure:
    """A measure of quality or variety, as the page shows it.

    Attributes:
        title: its title.
        meaning: its meaning, in one line.
        unit: whether it is a share of the samples or a plain number.
        drawn: whether it has a panel of its own, pass by pass.
        small: whether it may be near zero, so that four decimals are not enough.
        how: estimator and interval, for statisticians; empty if `promptgen.reporting.sections.methods` has them.
    """

    title: str
    meaning: str
    unit: Literal["share", "number"] = "number"
    drawn: bool = False
    small: bool = False
    how: str = ""


MEASURES: Final[dict[str, Measure]] = {
    "precision": Measure(
        "Precision", "Fraction of these samples that look like the generator’s own.", "share", drawn=True
    ),
    "recall": Measure(
        "Recall", "Fraction of the generator’s variety that these samples still cover.", "share", drawn=True
    ),
    "identity_diversity": Measure(
        "Identity diversity",
        "How different two of these faces are on average. A drop means that faces repeat.",
        drawn=True,
    ),
    "frechet": Measure(
        "Frechet distance",
        "Distance between these samples and the generator’s own as a whole, as a network sees them.",
        drawn=True,
    ),
    "kernel": Measure(
        "Kernel distance", "The same by another measure, which is 0 on average if nothing has changed.", small=True
    ),
    "vendi": Measure(
        "Vendi score",
        "Number of samples with nothing in common that would be as varied as these. A drop means that samples repeat.",
        drawn=True,
        how="exp of the Shannon entropy of the eigenvalues of the cosine kernel over N, of all samples of the pass, or "
        f"of {PAIRS:,} of them at random; normal interval of its log by the delta method. It depends on N: compare "
        "passes with the same N.",
    ),
}
"""The measures in the order of the page, by their names in `promptgen.records.Quality`."""

MEANINGS: Final[dict[str, str]] = {
    # shares
    "Share": "Fraction of the samples that show this class.",
    "Target": "The desired share.",
    "reference": "Shares with which a watched attribute is compared. No flow was trained towards them.",
    "N": "Number of samples counted.",
    "classifier": "Labels of the model that steers the de-biasing. A flow can learn to please it.",
    "judge": "Labels of the model that decides whether the target is met.",
    "truth": "The attribute that each sample really has. Only the embedded world knows it.",
    "corrected": "The share without the known errors of its classifier, as measured on labelled images.",
    "mean probability": "The share if a doubtful image counts fractionally, by the classifier’s probabilities.",
    # differences
    "Change from previous": "Difference from the share of the previous pass, in percentage points.",
    "Change": "Difference from the previous pass.",
    "p": "How often chance alone would produce a difference at least this large.",
    "changed": "Whether any share differs by more than chance explains. An undetected change is still possible.",
    "On target": "Yes if the confidence intervals of all shares, which hold together, contain their targets. If the "
    "target was itself counted, yes if those of all differences from it contain 0.",
    "Time": "Total of all steps of the pass.",
    # distances
    "KL, nats": "Distance of all shares from the target. 0 is the target; 60 : 40 instead of 50 : 50 is 0.020.",
    "Total variation": "Fraction of the samples that would have to change class to meet the target.",
    "Discrepancy": "Straight-line distance from the shares to the target (the fairness discrepancy).",
    "By chance alone": "Average distance for samples of exactly the target. A distance this small may be chance.",
    # quality
    **{measure.title: measure.meaning for measure in MEASURES.values()},
    "Frechet distance, by chance": "Average value for two sets of samples of these sizes from one source.",
    "N against": "Number of samples, and of the generator’s own they are compared with; in pass 0, two halves.",
    # fits
    "log Z, estimate": "Normalising constant of the target. Only its distance to the bound says how good the fit is.",
    "log Z, lower bound": "The value that the flow reaches. On average it is not above log Z; the closer, the better.",
    "Gap (KL), nats": "Difference of the two: how far the flow is from the target distribution. 0 is a perfect fit.",
    "Effective samples": "Fraction of the sample that remains after weighting it to be exact. 100 % is a perfect fit.",
    "Tail index": "How far a few samples dominate: good up to 0.5, usable up to about 0.7, else untrustworthy.",
    "The weights are": "The tail index in words.",
    # reuse
    "Units spent": "Cost of the images made for training, in images: one with a gradient counts as three.",
    "Evaluations used": "Images that taught or checked the surrogate, those of earlier passes included.",
    "Effective samples, expected": "What the surrogate expects. The true value is lower where the surrogate is wrong.",
    "Directions": "Directions of the latent that the flow moves. Everything else stays as the generator draws it.",
    "Projection error, nats": "Upper limit of the KL that fixing all other directions costs, by fresh gradients.",
    "Surrogate": "Trusted if the true value is at least half of the expected one.",
    # multipliers
    "Share before": "Share in the previous pass, by the classifier.",
    "Multiplier, solved": "How strongly a class is favoured: its weight is multiplied by e to this power; 0 is none.",
    "Multiplier, after training": "The same at the end of training.",
    # time and work
    "fit_moments": "Solving the multipliers.",
    "train_flow": "Training the flow.",
    "sample": "Drawing and labelling the samples that are counted.",
    "evaluate": "Counting the labels, and all other figures.",
    "estimate_bias": "Comparing the shares with the target, and deciding whether to continue.",
    "confirm": "Drawing and labelling the samples of the confirming count.",
    "images made": "Images made by the generator in all steps of the pass.",
    "of these, with a gradient": "Images used to train a flow, which cost several times as much.",
}
"""Meanings by the heading of a column or row."""
