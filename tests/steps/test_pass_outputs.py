"""What the steps of a pass write, on a world of the test's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from promptgen.config.build import build_chain
from promptgen.errors import (
    ConfigError,
)
from promptgen.files import read_json
from promptgen.records import Metrics
from promptgen.tracking import NullTracker
from steps import check, evaluate, fit_moments, report, sample, train_flow
from steps.measuring.records import STEPS, SUMMARY_NAME, pass_record, write_metrics
from steps.measuring.samples import Samples, SampleWriter
from steps.shared.common import Pass, Project
from tests import tiny
from tests.steps.projects import arrays_of, changed, project_in, run_pass


def test_passes_control_and_correct(done):
    """The control brings what it asks for and a bias with it; de-biasing takes the bias back and keeps the rest."""
    first, control, last = (pass_record(Pass(done, number)) for number in range(3))
    for reader in ("classifier", "judge", "truth"):
        name = f"makeup.without.{reader}"
        assert first.by[reader].shares["long"].value == pytest.approx(0.38, abs=0.06)
        assert control.control[name].value > first.control[name].value + 0.25
        assert control.by[reader].shares["long"].value > first.by[reader].shares["long"].value + 0.2
        assert abs(last.by[reader].shares["long"].value - 0.5) < 0.1
        assert last.control[name].value > first.control[name].value + 0.2


def test_record_has_the_agreed_form(done):
    record = pass_record(Pass(done, 2)).as_dict()
    assert set(record) == {
        "pass", "kind", "n", "target", "chance", "by", "watched", "quality", "control", "changes", "fit", "reuse",
        "seconds", "generator_evaluations",
    }  # fmt: skip
    assert set(record["by"]["judge"]) == {
        "counts", "shares", "simultaneous", "from_target", "kl", "total_variation", "discrepancy", "soft", "corrected",
        "uncorrectable", "within",
    }  # fmt: skip
    assert set(record["seconds"]) == set(STEPS["debias"])
    assert set(record["fit"]) == {"ess_fraction", "log_z", "kl_gap", "tail_index", "trust", "n"}
    assert pass_record(Pass(done, 0)).fit is None
    training = done.params.debias.training
    assert record["generator_evaluations"]["backward"] == training.steps * training.batch
    assert set(record["control"]) == {
        "makeup.without.classifier", "makeup.without.judge", "makeup.without.truth", "identity.diversity",
    }  # fmt: skip


def test_metrics_file_is_the_same_for_the_same_records(done, tmp_path):
    project = Project(tmp_path, done.params)
    records = [pass_record(Pass(done, number)) for number in range(3)]
    content = write_metrics(project, records, "maximum of passes reached").read_bytes()
    assert write_metrics(project, records, "maximum of passes reached").read_bytes() == content
    metrics = json.loads(content)
    assert metrics["target"] == {"short": 0.5, "long": 0.5}
    assert [record["kind"] for record in metrics["passes"]] == ["generator", "control", "debias"]
    summary = read_json(project.reports / SUMMARY_NAME)
    assert (summary["passes"], summary["stopped"]) == (3, "maximum of passes reached")
    assert summary["last"]["kl"] == records[2].by["judge"].kl.as_dict()
    assert summary["first"]["shares"]["long"] == records[0].by["judge"].shares["long"].value
    assert summary["last"]["ess_fraction"] == records[2].fit.ess_fraction.value
    assert not any(isinstance(value, list) for part in summary.values() if isinstance(part, dict) for value in part)


def test_samples_hold_labels_and_no_pictures(done):
    samples = Samples(Pass(done, 1).folder("sample"))
    arrays, labels = arrays_of(samples), samples.labels
    n = done.params.evaluation.samples
    assert labels["judge"] == {"hair": ["short", "long"], "makeup": ["without", "with"]}
    assert arrays["truth.hair"].shape == (n,)
    assert arrays["probability.judge"].shape == (n, 2)
    assert arrays["identity"].shape == (n, 3)
    assert arrays["tiles"].shape == (8, 4, 4, 3)
    for reader in ("classifier", "judge"):
        np.testing.assert_array_equal(arrays[f"{reader}.hair"], arrays[f"probability.{reader}"].argmax(axis=1))


def test_grid_shows_the_same_noise_in_every_pass(done):
    """Pass 0 of a second experiment with the same seed has the grid of the first; and tiles are where they belong."""
    arrays = Samples(Pass(done, 0).folder("sample")).pictures()
    sheet = np.asarray(Image.open(Pass(done, 0).folder("sample") / sample.GRID_NAME))
    assert sheet.shape == (2 * 4, 4 * 4, 3)
    np.testing.assert_array_equal(sheet[4:8, 0:4], arrays["tiles"][4])
    np.testing.assert_array_equal(sheet[0:4, 4:8], arrays["tiles"][1])


def test_large_pictures_are_shrunk_for_the_grid():
    image = torch.linspace(0, 1, 3 * 512 * 512).reshape(1, 3, 512, 512)
    tiles = sample.tiles_of(image)
    assert tiles.shape == (1, 256, 256, 3)
    assert abs(tiles.mean() / 255 - float(image.mean())) < 0.01


def test_chain_needs_no_control_model(done, tmp_path):
    """The checkpoint alone gives the generator that pass 2 was measured on."""
    chain = build_chain(Pass(done, 2).chain, tmp_path)
    again = Pass(done, 2).generator()
    latent = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(chain(latent), again(latent))


def test_bias_says_what_moved(done):
    moved = pass_record(Pass(done, 1)).change(since=0).by["judge"].shares
    assert 0 < moved["long"].low < moved["long"].value < moved["long"].high
    assert moved["long"].value == pytest.approx(-moved["short"].value)
    assert pass_record(Pass(done, 0)).changes == []


def test_the_ascent_starts_at_the_fitted_multipliers_of_each_label(done):
    """Labels are not in alphabetical order, files are: a mix-up would start the training on the wrong side."""
    this = Pass(done, 2)
    fitted = read_json(this.folder("fit_moments") / "moments.json")["beta"]
    first = read_json(this.folder("train_flow") / "history.json")[0]
    assert list(fitted) != ["hair:short", "hair:long"]
    assert abs(fitted["hair:short"]) > 0.3
    for label, beta in fitted.items():
        assert np.sign(first[f"beta/{label}"]) == np.sign(beta)


def test_product_of_attributes_can_be_debiased(tmp_path):
    content = tiny.params()
    content["debias"]["attribute"] = "hair x makeup"
    content["debias"]["target"] = {
        f"{hair} x {makeup}": 0.25 for hair in ("short", "long") for makeup in ("without", "with")
    }
    project = project_in(tmp_path, content)
    check.run(project)
    shares = run_pass(project, 0)["evaluate"]["result"]["by"]["judge"]["shares"]
    assert sum(share["value"] for share in shares.values()) == pytest.approx(1)


def test_classes_of_a_choice_are_written_as_the_classifiers(tmp_path):
    project = project_in(tmp_path, changed("debias", target="{1::LONG|3::Short}", max_passes=0) | {"control": None})
    check.run(project)
    run_pass(project, 0)
    record = pass_record(Pass(project, 0))
    assert record.target == {"long": 0.25, "short": 0.75}
    path = write_metrics(project, [record], "only measured")
    metrics = Metrics.parse(read_json(path), str(path))
    assert metrics.target == record.target
    report.run(project)  # which refuses figures of another target


def test_without_control_the_generator_itself_is_debiased(tmp_path):
    content = tiny.params()
    content["control"] = None
    content["evaluation"]["identity"] = None
    project = project_in(tmp_path, content)
    assert run_pass(project, 0)["estimate_bias"]["result"]["stop"] is None
    assert run_pass(project, 0)["evaluate"]["result"]["control"] == {}
    last = run_pass(project, 1)["evaluate"]["result"]
    assert last["kind"] == "debias"
    assert abs(last["by"]["truth"]["shares"]["long"]["value"] - 0.5) < 0.1


def test_multipliers_alone_are_fitted_without_a_flow(tmp_path):
    project = project_in(tmp_path, changed("debias", training=None) | {"control": None})
    fitted = fit_moments.run(Pass(project, 0).after, NullTracker())["result"]
    assert fitted["beta"]["hair:short"] < 0 < fitted["beta"]["hair:long"]
    assert fitted["achieved"]["hair:long"] == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(ConfigError, match=r"debias\.training is null: the multipliers are fitted and no flow"):
        train_flow.run(Pass(project, 1), NullTracker())


def test_shares_are_corrected_for_errors_that_a_card_tells(tmp_path):
    """The judge takes a tenth of either label for the other; its card says so, and the corrected shares are true."""
    content = tiny.params()
    content["debias"]["judge"] = "unsure"
    content["evaluation"] |= {"identity": None, "features": None, "watch": {}}
    project = project_in(tmp_path, content)
    card = {
        "kind": "classifier", "type": "world-network", "licence": "none", "files": [{"file": "x", "urls": []}],
        "quality": {"hair": {"confusion": [[900, 100], [100, 900]]}},
    }  # fmt: skip
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"unsure": card}))
    labels = np.repeat([0, 1], [700, 300])
    read = {
        "judge.hair": np.repeat([0, 1], [660, 340]),
        "truth.hair": labels,
        "probability.judge": np.full((1000, 2), 0.5),
    }
    names = {"judge": {"hair": ["short", "long"]}, "truth": {"hair": ["short", "long"]}}
    writer = SampleWriter(Pass(project, 0).folder("sample"))
    writer.add(0, read)
    writer.finish(names)
    record = evaluate.run(Pass(project, 0), NullTracker())["result"]
    corrected = record["by"]["judge"]["corrected"]["long"]
    assert record["by"]["truth"]["corrected"] is None
    assert corrected["value"] == pytest.approx(0.3)
    assert corrected["low"] < 0.3 < corrected["high"]
    assert record["by"]["judge"]["shares"]["long"]["value"] == pytest.approx(0.34)
