"""How every number of a report was computed, for statisticians: method, sample size and random stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from promptgen.metrics.sizes import NEIGHBOURS, PAIRS, SUBSET_SIZE, SUBSETS
from promptgen.reporting.run import Run
from promptgen.reporting.sections.control import DIVERSITY, other_measures
from promptgen.reporting.text.formats import ABSENT, count, listing
from promptgen.reporting.text.glossary import MEASURES


@dataclass(frozen=True)
class Method:
    """How a number was computed.

    Attributes:
        name: name of the number in the report.
        how: estimator and interval.
        n: sample size.
        stream: name of the random stream of resampling or simulation; a dash if there was none.
    """

    name: str
    how: str
    n: str
    stream: str = ABSENT


def methods(run: Run) -> list[Method]:
    """Return the methods of all numbers that the run has."""
    return [*_counting(run), *_comparing(run), *_quality(run), *_control(run), *_training(run)]


def seeds(run: Run) -> str:
    """Return how all random numbers follow from the seed."""
    return (
        f"All randomness follows from seed {run.settings.seed}. The seed of a stream is the SHA-256 of the seed of its "
        "pass and the stream’s name; the seed of a pass is that of the root seed and the number of the pass. No two "
        "passes and no two purposes share a sample. Samples are drawn from the streams “train”, “validate”, "
        "“moments”, “evaluate”, “fit” and “confirm” of each pass, or, where evaluations are kept, from “explore”, "
        "“round”, “land” and “fit” instead of the first three. Differences between passes are resampled with the "
        "root seed."
    )


def _counting(run: Run) -> Iterator[Method]:
    metrics, resamples = run.metrics, count(run.settings.bootstrap)
    n = _sizes([record.n for record in metrics.passes])
    yield Method("Shares", "Wilson’s score interval (1927), for each class separately.", n)
    if any(record.trusted.from_target for record in metrics.passes):
        how = (
            "Differences of the shares from a target that was itself counted, with Newcombe’s hybrid score interval "
            "(1998), at the level that makes all intervals hold together (Bonferroni). The loop ends by these."
        )
        yield Method("On target", how, n)
    elif len(metrics.target) > 2:
        how = "As shares, at the level that makes all intervals hold together (Bonferroni). The loop ends by these."
        yield Method("On target", how, n)
    if any(reader.soft for record in metrics.passes for reader in record.by.values()):
        how = (
            "Mean of the class probabilities. Interval: Wilson’s, with the sample size that gives a share the standard "
            "error of this mean. Distances assume a normal mean with the covariance of the samples."
        )
        yield Method("Mean probabilities", how, n, "interval")
    if any(reader.corrected for record in metrics.counts for reader in record.by.values()):
        how = (
            "The confusion table on the classifier’s card, inverted and projected onto the simplex. Interval: "
            f"quantiles of {resamples} draws of counts and table from their posteriors under Jeffreys’ prior. A table "
            "that does not apply is reported at the same confidence over all classes (Bonferroni)."
        )
        yield Method("Corrected shares", how, f"{n}; the N of the table is on the card", "correction")
    how = (
        "Plug-in estimate, biased upwards near the target. Interval: the bootstrap inverted along the exponential "
        f"family from the target through the shares, {resamples} simulated samples per member tried; it reaches 0 "
        "while chance explains the value."
    )
    yield Method("Distances to the target", how, n, "interval")
    how = f"KL: (K − 1) / 2N, to first order. The others: mean of {resamples} simulated samples of the target."
    yield Method("By chance alone", how, n, "noise floor")
    if metrics.confirmation:
        how = (
            "As shares and distances, on samples from a separate stream that decided nothing. The loop tests every "
            "pass and stops at the first success, so the count that ended it is selected; this one is not."
        )
        yield Method("Confirming count", how, count(metrics.confirmation.n), "as above")


def _comparing(run: Run) -> Iterator[Method]:
    metrics, resamples = run.metrics, count(run.settings.bootstrap)
    n = "both passes"
    if len(metrics.passes) > 1:
        how = "Newcombe’s hybrid score interval (1998, method 10); p by the score test, two-sided, pooled variance."
        yield Method("Change of a share", how, n)
        how = (
            f"Bootstrap of both passes, {resamples} resamples, each distance recentred at its estimate; p is twice the "
            "fraction of differences beyond 0, so never below 2 / (resamples + 1)."
        )
        yield Method("Change of a distance", how, n, "difference")
    if any(record.watched for record in metrics.passes):
        how = (
            f"Shares and distances as above. Change: permutation test of the chi-square statistic, {resamples} "
            "permutations. The p-values are not corrected for multiple testing: of 20 attributes that nothing "
            "changes, one is below 0.05 on average."
        )
        yield Method("What else changed", how, n, "homogeneity")


def _quality(run: Run) -> Iterator[Method]:
    measured = [record for record in run.metrics.passes if record.quality]
    if not measured:
        return
    n = _sizes([record.quality.n for record in measured if record.quality])
    features = listing(sorted({record.quality.features for record in measured if record.quality}))
    how = (
        f"Squared, between Gaussians fitted to features of {features}; no interval. By chance: mean for two samples "
        "of one Gaussian with the pooled covariance, to first order in 1 / N."
    )
    yield Method("Frechet distance", how, n)
    how = (
        f"Unbiased squared MMD with a cubic kernel, mean over at least {SUBSETS} disjoint subsets of at most "
        f"{count(SUBSET_SIZE)} samples. Interval: Student’s t over the subsets. The value may be negative."
    )
    yield Method("Kernel distance", how, n, "kernel distance")
    how = (
        f"Fraction of one set within the nearest-neighbour balls of the other (neighbour {NEIGHBOURS}). Interval: "
        f"Wilson’s, with the effective sample size implied by the spread over {SUBSETS} disjoint parts, at most N. "
        f"Both depend on N: compare passes with the same N. Of more than {count(PAIRS)} samples, a random subset of as "
        "many."
    )
    few = _sizes([min(record.quality.n, PAIRS) for record in measured if record.quality])
    yield Method("Precision and recall", how, few, "precision and recall")
    sizes = _sizes([min(record.n, PAIRS) for record in measured])
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
            "Mean of sqrt(2 (1 − cos)) of unit embeddings. Bootstrap over pairs that share no latent, "
            f"{resamples} resamples."
        )
        yield Method("Identity, same and other latent", how, f"at most {count(PAIRS)}", "identity within, between")


def _training(run: Run) -> Iterator[Method]:
    fits = [record.fit for record in run.metrics.passes if record.fit]
    if fits:
        how = (
            "log mean w, its difference to mean log w and (Σ w)² / (N Σ w²) of importance weights w; normal intervals "
            "with standard errors by the delta method. Tail index: shape k of a generalised Pareto distribution of the "
            "largest weights, as in Pareto-smoothed importance sampling (Vehtari et al. 2024)."
        )
        yield Method("Fit", how, _sizes([fit.n for fit in fits]))
    moments = [material.moments for material in run.material if material.moments]
    if moments:
        resamples = run.settings.moment_bootstrap
        interval = f"{count(resamples)} resamples" if resamples else "none in this run, so no interval"
        how = f"Solution of the convex dual. Bootstrap of the samples, {interval}."
        yield Method("Multipliers", how, _sizes([solution["n"] for solution in moments]), "bootstrap, beta")


def _sizes(sizes: list[int]) -> str:
    """Return the distinct sample sizes in words."""
    different = list(dict.fromkeys(sizes))
    return " or ".join(count(size) for size in different)
