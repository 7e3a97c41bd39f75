"""How every number of a report was computed, for a statistician: method, sample size, random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from promptgen.metrics.identity import PAIRS
from promptgen.metrics.sizes import NEIGHBOURS, SUBSET_SIZE, SUBSETS
from promptgen.reporting.run import Run
from promptgen.reporting.sections.control import DIVERSITY, other_measures
from promptgen.reporting.text.formats import ABSENT, count, listing
from promptgen.reporting.text.glossary import MEASURES


@dataclass(frozen=True)
class Method:
    """How a number was computed.

    Attributes:
        name: what the report calls it.
        how: estimator and interval.
        n: samples that it rests on.
        stream: name of the random stream of what was resampled or simulated; a dash where nothing was.
    """

    name: str
    how: str
    n: str
    stream: str = ABSENT


def methods(run: Run) -> list[Method]:
    """Return what a statistician asks of each number that this run has."""
    return [*_counting(run), *_comparing(run), *_quality(run), *_control(run), *_training(run)]


def seeds(run: Run) -> str:
    """Return where all random numbers come from."""
    return (
        f"Everything random follows from seed {run.settings.seed}. A stream is seeded by the SHA-256 of its pass’s "
        "seed and of the stream’s name, and the seed of a pass by that of the root seed and the number of the pass, so "
        "that no two passes and no two purposes share a sample. Samples are drawn from the streams “train”, "
        "“validate”, “moments”, “evaluate”, “fit” and “confirm” of each pass. Differences between passes are resampled "
        "with the root seed."
    )


def _counting(run: Run) -> Iterator[Method]:
    metrics, resamples = run.metrics, count(run.settings.bootstrap)
    n = _sizes([record.n for record in metrics.passes])
    yield Method("Shares", "Wilson’s score interval (1927) for each class by itself.", n)
    if any(reader.soft for record in metrics.passes for reader in record.by.values()):
        how = (
            "Mean of the class probabilities; Wilson’s interval with the sample size that gives a share the standard "
            "error of this mean. Their distances take the mean for normal, with the covariance of the samples."
        )
        yield Method("Mean probabilities", how, n, "interval")
    if any(reader.corrected for record in metrics.counts for reader in record.by.values()):
        how = (
            "The confusion table of the counter’s card inverted, the result projected onto the simplex. Interval: "
            f"quantiles of {resamples} draws of counts and table from their posteriors under Jeffreys’ prior. That the "
            "table does not hold is said at the same confidence over all classes together (Bonferroni)."
        )
        yield Method("Corrected shares", how, f"{n}; the table’s own N is on the card", "correction")
    how = (
        "Plug-in estimate, which is too large near the target. Interval: the bootstrap inverted along the exponential "
        f"family from the target through the shares, {resamples} simulated samples for each member tried; it reaches 0 "
        "while chance explains the value."
    )
    yield Method("Distances to the target", how, n, "interval")
    how = f"KL: (K − 1) / 2N, to first order. The others: mean of {resamples} simulated samples of the target."
    yield Method("By chance alone", how, n, "noise floor")
    if metrics.confirmation:
        how = (
            "As shares and distances, on samples of a stream of their own that decided nothing. The loop stops by "
            "looking at each pass once, so the last count before it is selected; this one is not."
        )
        yield Method("Counted again", how, count(metrics.confirmation.n), "as above")


def _comparing(run: Run) -> Iterator[Method]:
    metrics, resamples = run.metrics, count(run.settings.bootstrap)
    n = "both passes"
    if len(metrics.passes) > 1:
        how = "Newcombe’s hybrid score interval (1998, method 10); p by the score test, two-sided, pooled variance."
        yield Method("Change of a share", how, n)
        how = (
            f"Bootstrap of both passes, {resamples} resamples, each distance recentred at its estimate; p is twice the "
            "part of the differences beyond 0, so never below 2 / (resamples + 1)."
        )
        yield Method("Change of a distance", how, n, "difference")
    if any(record.watched for record in metrics.passes):
        how = (
            f"Shares and distances as above. Change: permutation test of the chi-square statistic, {resamples} "
            "permutations. No p-value is corrected for there being several: of 20 attributes that nothing moves, one "
            "is below 0.05 on average."
        )
        yield Method("What else changed", how, n, "homogeneity")


def _quality(run: Run) -> Iterator[Method]:
    measured = [record for record in run.metrics.passes if record.quality]
    if not measured:
        return
    n = _sizes([record.quality.n for record in measured if record.quality])
    features = listing(sorted({record.quality.features for record in measured if record.quality}))
    how = (
        f"Of Gaussians fitted to the features of {features}, squared; no interval. By chance: the mean for two samples "
        "of one Gaussian with the pooled covariance, to first order in 1 / N."
    )
    yield Method("Frechet distance", how, n)
    how = (
        f"Unbiased squared MMD with a cubic kernel, mean over at least {SUBSETS} disjoint subsets of at most "
        f"{count(SUBSET_SIZE)} samples; Student’s t over the subsets. It may be negative."
    )
    yield Method("Kernel distance", how, n, "kernel distance")
    how = (
        f"Part of one set within balls around the other, each reaching to its {NEIGHBOURS} nearest. Interval: "
        f"Wilson’s with the sample size that the spread over {SUBSETS} disjoint parts is worth, at most N. Both depend "
        "on N: compare passes of one size."
    )
    yield Method("Precision and recall", how, n, "precision and recall")
    sizes = _sizes([record.n for record in measured])
    yield from (Method(measure.title, measure.how, sizes) for measure in MEASURES.values() if measure.how)


def _control(run: Run) -> Iterator[Method]:
    metrics, resamples = run.metrics, count(run.settings.bootstrap)
    n = _sizes([record.n for record in metrics.passes])
    names = {name for record in metrics.passes for name in other_measures(record)}
    if any(DIVERSITY in record.control for record in metrics.passes):
        how = f"Mean of 1 − cos over all pairs of embeddings; Poisson bootstrap over samples, {resamples} resamples."
        yield Method("Identity diversity", how, n, "diversity")
    if any(name.startswith("pose.") for name in names):
        how = f"Mean geodesic angle; least-squares slope. Bootstrap over samples, {resamples} resamples."
        yield Method("Pose error, slopes", how, n, "pose error, pose slope")
    if any(name in names for name in ("identity.within", "identity.between")):
        how = (
            "Mean of sqrt(2 (1 − cos)) of unit embeddings; bootstrap over pairs that share no latent, "
            f"{resamples} resamples."
        )
        yield Method("Identity, same and other latent", how, f"at most {count(PAIRS)}", "identity within, between")


def _training(run: Run) -> Iterator[Method]:
    fits = [record.fit for record in run.metrics.passes if record.fit]
    if fits:
        how = (
            "log mean w, its difference to mean log w, and (Σ w)² / (N Σ w²) of importance weights w; normal intervals "
            "with standard errors by the delta method. Tail index: shape k of a generalised Pareto distribution of the "
            "largest weights, as in Pareto-smoothed importance sampling (Vehtari et al. 2024)."
        )
        yield Method("Fit", how, _sizes([fit.n for fit in fits]))
    moments = [material.moments for material in run.material if material.moments]
    if moments:
        how = f"Solution of the convex dual; bootstrap of the samples, {_moment_resamples(run)}."
        yield Method("Multipliers", how, _sizes([each["n"] for each in moments]), "bootstrap, beta")


def _moment_resamples(run: Run) -> str:
    resamples = run.settings.moment_bootstrap
    return f"{count(resamples)} resamples" if resamples else "none here, so no interval"


def _sizes(sizes: list[int]) -> str:
    """Return sample sizes in words: one if they are all alike, else each."""
    different = list(dict.fromkeys(sizes))
    return " or ".join(count(size) for size in different)
