"""Turn the samples of a pass into figures: shares, distances to the target, the request, quality, diversity."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "evaluate")

from promptgen.labels import agreed_classes, class_index
from promptgen.metrics.diversity import pairwise_distance
from promptgen.metrics.identity import identity_between, identity_within
from promptgen.metrics.pose import pose_error, pose_slopes
from promptgen.metrics.quality import compare
from promptgen.metrics.shares import wilson
from promptgen.metrics.sizes import PAIRS
from promptgen.metrics.vendi import vendi_score
from promptgen.records import TRUSTED, AttributeBias, Distance, Interval, Measurement, Quality
from promptgen.tracking import Tracker
from steps.measuring.counting import (
    bias_of_counts,
    counting_params,
    debias_count,
    label_counts,
    reader_record,
    resampling,
)
from steps.measuring.samples import SAMPLES_NAME, Samples
from steps.shared.common import Pass, Result


def run(run_pass: Pass, tracker: Tracker) -> Result:
    """Measure shares and distances by classifier, judge and truth, what the control asks for, and quality.

    Quality is measured against the samples of pass 0, the generator alone; of those themselves, one half against the
    other, which is what chance alone shows.

    Returns:
        As of every step; its result is that of `promptgen.records.Measurement`.

    Raises:
        DataError: this pass or pass 0 has not been sampled yet.
        ConfigError: the target, the control or what is watched names a label that a reader does not know.
        TooFewSamplesError: there are too few samples for the figures of quality.
    """
    control, evaluation = run_pass.params.control, run_pass.params.evaluation
    params = {
        **counting_params(run_pass),
        "measure": control.measure if control else {},
        "condition": dict(run_pass.params.condition.ranges),
        **evaluation.model_dump(include={"watch", "features"}),
    }
    passes = {"pass": run_pass} | ({"first": Pass(run_pass.project, 0)} if evaluation.features else {})
    inputs = {name: origin.sha256(origin.folder("sample") / SAMPLES_NAME) for name, origin in passes.items()}
    return run_pass.step("evaluate", params, inputs, lambda _: _evaluate(run_pass).as_dict())


def _evaluate(run_pass: Pass) -> Measurement:
    samples = Samples(run_pass.folder("sample"))
    return Measurement(
        **dict(debias_count(run_pass, samples, soft=True)),
        kind=run_pass.kind,
        watched=_watched(run_pass, samples),
        quality=_quality(run_pass, samples),
        control=_requested(run_pass, samples) | _diversity(run_pass, samples) | _condition(run_pass, samples),
    )


def _watched(run_pass: Pass, samples: Samples) -> dict[str, AttributeBias]:
    """Return the bias of each watched attribute, by the readers that agree on its classes."""
    watched, readers = {}, samples.labels
    for attribute, wanted in run_pass.params.evaluation.watch.items():
        agreed = agreed_classes({source: readers[source] for source in TRUSTED if source in readers}, attribute)
        counts = {source: label_counts(samples, source, readers[source], attribute) for source in agreed}
        biases = {source: bias_of_counts(counts[source], wanted, resampling(run_pass)) for source in agreed}
        labels, bias = next(zip(agreed.values(), biases.values(), strict=True))
        watched[attribute] = AttributeBias(
            target=dict(zip(labels, bias.target, strict=True)),
            chance=bias.noise_floors,
            by={source: reader_record(counts[source], biases[source]) for source in agreed},
        )
    return watched


def _quality(run_pass: Pass, samples: Samples) -> Quality | None:
    """Return quality and variety compared with the generator's own samples; None without a feature network."""
    network, confidence = run_pass.params.evaluation.features, run_pass.params.evaluation.confidence
    if network is None:
        return None
    features = samples["features"]
    if run_pass.number == 0:
        pair = features.part(0, 2), features.part(1, 2)
    else:
        pair = features, Samples(Pass(run_pass.project, 0).folder("sample"))["features"]
    figures = compare(*pair, confidence=confidence, seed=run_pass.seed)
    return Quality(
        reference="the generator" if run_pass.number else "its other half",
        features=" and ".join(network.names()),
        n=figures.n,
        n_reference=figures.n_reference,
        few_samples=figures.frechet.few_samples,
        precision=Interval.of(figures.precision),
        recall=Interval.of(figures.recall),
        frechet=Distance(value=figures.frechet.value, chance=figures.frechet.floor),
        kernel=Interval.of(figures.kernel.interval(confidence)),
        vendi=Interval.of(vendi_score(features, confidence=confidence, seed=run_pass.seed)),
    )


def _requested(run_pass: Pass, samples: Samples) -> dict[str, Interval]:
    """Return the share of each label that the control asks for, by `ATTRIBUTE.LABEL.READER`."""
    shares = {}
    measure = run_pass.params.control.measure if run_pass.params.control else {}
    for attribute, label in measure.items():
        for reader, attributes in samples.labels.items():
            if counts := label_counts(samples, reader, attributes, attribute):
                class_index(attributes, attribute, label)  # raises if there is no such label
                share = wilson(counts[label], sum(counts.values()), run_pass.params.evaluation.confidence)
                shares[f"{attribute}.{label}.{reader}"] = Interval.of(share)
    return shares


def _diversity(run_pass: Pass, samples: Samples) -> dict[str, Interval]:
    """Return the mean distance of the identities of two samples, if there is an identity network."""
    if "identity" not in samples:
        return {}
    return {"identity.diversity": Interval.of(pairwise_distance(samples["identity"], **resampling(run_pass)))}


def _condition(run_pass: Pass, samples: Samples) -> dict[str, Interval]:
    """Return how well the condition is followed, and how much it changes identities, as far as networks measured it."""
    if "condition" not in samples:
        return {}
    names, options = run_pass.params.condition.names, resampling(run_pass)
    estimates = {}
    if "pose" in samples:
        poses = samples["pose"], samples["condition"]
        estimates["pose.error"] = pose_error(*poses, names, **options)
        slopes = pose_slopes(*poses, names, **options)
        estimates |= {f"pose.{name}.slope": slope for name, slope in slopes.items()}
    if "identity" in samples:
        views = [samples[name][:PAIRS] for name in ("identity", "identity_again") if name in samples]
        estimates["identity.between"] = identity_between(*views, **options)
        if len(views) == 2:
            estimates["identity.within"] = identity_within(*views, **options)
    return {name: Interval.of(estimate) for name, estimate in estimates.items()}
