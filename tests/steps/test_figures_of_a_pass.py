"""What a pass's record says beside the shares: other distances, mean probabilities, watched attributes, quality."""

import numpy as np
import pytest
import torch

from promptgen.errors import ConfigError, DataError
from promptgen.files import read_json
from promptgen.records import PassRecord
from steps import check, fetch
from steps.estimate_bias import EXHAUSTED
from steps.measuring.records import SUMMARY_NAME, pass_record, write_metrics
from steps.measuring.samples import Samples
from steps.shared.common import Pass, Project
from tests.steps.projects import arrays_of, changed, project_in, run_pass


@pytest.fixture(scope="module")
def records(done):
    return [pass_record(Pass(done, number)).as_dict() for number in range(3)]


def test_the_report_takes_every_record(records):
    for record in records:
        PassRecord.model_validate(record)


def test_distances_stand_beside_what_chance_alone_shows(records):
    for record in records:
        distances = record["by"]["judge"]
        share = distances["shares"]["long"]["value"]
        assert distances["total_variation"]["value"] == pytest.approx(abs(share - 0.5))
        assert distances["discrepancy"]["value"] == pytest.approx(2**0.5 * abs(share - 0.5))
        assert record["chance"]["kl"] == pytest.approx(1 / (2 * record["n"]))
        # the mean of |k / n - 1/2| is sqrt(2 / (pi n)) / 2, to first order
        assert record["chance"]["total_variation"] == pytest.approx((2 / (np.pi * record["n"])) ** 0.5 / 2, rel=0.3)


def test_soft_shares_are_mean_probabilities_of_classifier_and_judge(done, records):
    for number, record in enumerate(records):
        arrays = arrays_of(Samples(Pass(done, number).folder("sample")))
        assert record["by"]["truth"]["soft"] is None  # the truth is not uncertain
        for reader in ("classifier", "judge"):
            share = record["by"][reader]["soft"]["shares"]["long"]
            assert share["value"] == pytest.approx(arrays[f"probability.{reader}"][:, 1].mean(), rel=1e-5)
            assert share["low"] < share["value"] < share["high"]


def test_intersections_are_watched(done, records):
    for number, record in enumerate(records):
        arrays = arrays_of(Samples(Pass(done, number).folder("sample")))
        watched = record["watched"]["hair x makeup"]
        assert watched["target"] == dict.fromkeys(watched["by"]["judge"]["shares"], 0.25)
        assert set(watched["by"]) == {"judge", "classifier", "truth"}
        both = (arrays["truth.hair"] == 1) & (arrays["truth.makeup"] == 0)
        share = watched["by"]["truth"]["shares"]["long x without"]
        assert share["value"] == pytest.approx(both.mean())
        assert share["low"] < both.mean() < share["high"]
    control = records[1]["watched"]["hair x makeup"]["by"]["truth"]
    assert control["kl"]["low"] > records[1]["watched"]["hair x makeup"]["chance"]["kl"]


def test_a_watched_attribute_may_have_a_target_of_its_own(tmp_path):
    project = project_in(tmp_path, changed("evaluation", watch={"makeup": {"without": 0.9, "with": 0.1}}))
    check.run(project)
    makeup = run_pass(project, 0)["evaluate"]["result"]["watched"]["makeup"]
    assert makeup["target"] == {"without": pytest.approx(0.9), "with": pytest.approx(0.1)}
    share = makeup["by"]["judge"]["shares"]["without"]["value"]
    assert makeup["by"]["judge"]["total_variation"]["value"] == pytest.approx(abs(share - 0.9))


@pytest.mark.parametrize(
    ("watch", "message"),
    [
        ({"hat": None}, "unknown attribute 'hat', expected one of hair, makeup"),
        ({"makeup": {"without": 0.5, "wiht": 0.5}}, "unknown class 'wiht', expected one of without, with"),
        ({"makeup": {"without": 0.5, "with": 0.4}}, r"watch.makeup: .*must sum to 1, these sum to 0.9"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_any_work(tmp_path, watch, message):
    with pytest.raises(ConfigError, match=message):
        check.run(project_in(tmp_path, changed("evaluation", watch=watch)))


def test_quality_is_measured_against_the_generator(done, records):
    halves, control, last = (record["quality"] for record in records)
    assert (halves["reference"], control["reference"]) == ("its other half", "the generator")
    n = done.params.evaluation.samples
    assert (halves["n"], halves["n_reference"], control["n"], control["n_reference"]) == (n // 2, n // 2, n, n)
    assert halves["features"] == "tests.tiny:colours"
    assert halves["frechet"]["value"] < 4 * halves["frechet"]["chance"]  # nothing but chance
    assert halves["kernel"]["low"] < 0 < halves["kernel"]["high"]
    assert control["frechet"]["value"] > 10 * control["frechet"]["chance"]  # which the control is meant to do
    assert control["kernel"]["low"] > 0
    assert last["recall"]["low"] < last["recall"]["value"] < last["recall"]["high"]


def test_quality_is_that_of_the_features_kept(done, records):
    """The Frechet distance of nearly normal features in one's own words: means, and covariances by their roots."""
    first, second = (Samples(Pass(done, number).folder("sample"))["features"][:].double() for number in (1, 0))
    one, other = first.T.cov(), second.T.cov()
    values = torch.linalg.eigvals(one @ other).real.clamp(min=0).sqrt().sum()
    expected = (first.mean(0) - second.mean(0)).square().sum() + one.trace() + other.trace() - 2 * values
    assert records[1]["quality"]["frechet"]["value"] == pytest.approx(float(expected), rel=1e-4)


def test_without_a_network_there_is_no_quality(tmp_path):
    project = project_in(tmp_path, changed("evaluation", features=None, watch={}))
    record = run_pass(project, 0)["evaluate"]["result"]
    assert record["quality"] is None
    assert record["watched"] == {}


def test_a_network_that_gives_no_vectors_is_told(tmp_path):
    features = {"type": "custom", "factory": "torch.nn:Identity", "arguments": {}}
    project = project_in(tmp_path, changed("evaluation", features=features))
    with pytest.raises(DataError, match=r"must return one vector per image, \(64, D\), got shape \(64, 3, 4, 4\)"):
        run_pass(project, 0)


def test_a_classifier_that_hides_its_features_is_refused_before_any_work(tmp_path):
    project = project_in(tmp_path, changed("evaluation", features="world-classifier"))
    fetch.run("world-classifier", project.models)
    with pytest.raises(ConfigError, match="world-classifier exposes no features"):
        check.run(project)


def test_the_summary_has_the_judges_figures_of_the_last_pass(records, done, tmp_path):
    write_metrics(Project(tmp_path, done.params), [pass_record(Pass(done, number)) for number in range(3)], EXHAUSTED)
    last = read_json(tmp_path / "reports" / SUMMARY_NAME)["last"]
    assert last["watched"] == {"hair x makeup": records[2]["watched"]["hair x makeup"]["by"]["judge"]["kl"]["value"]}
    assert last["quality"]["recall"] == records[2]["quality"]["recall"]["value"]
    assert last["quality"]["frechet"] == records[2]["quality"]["frechet"]["value"]
