"""The step: what it reads, what it leaves, and its one-line errors."""

import json
from pathlib import Path

import made_up_run
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from promptgen.errors import DataError, StorageError
from promptgen.files import sha256_of, write_json
from steps import report
from steps.measuring.samples import Samples, SampleWriter
from steps.shared.common import Project
from steps.shared.manifest import StepFolder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path):
    """A project in which the loop of the default experiment has ended, with made-up figures."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    own = {"type": "custom", "factory": "made_up_run:make"}  # so that no weight file is needed
    params["debias"] |= {"classifier": own, "judge": own | {"factory": "made_up_run:record"}}
    params["evaluation"] |= {"identity": None, "features": None, "watch": {"glasses": None, "age": None}}
    params["control"]["energies"] = {"smile": {"type": "custom", "function": "made_up_run:make", "weight": 1.0}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params | {"generator": own}, sort_keys=False))
    project = Project.load(tmp_path / "params.yaml")
    content = made_up_run.with_changes(made_up_run.content()) | {"experiment": project.params.experiment}
    write_json(project.reports / "metrics.json", content)
    for record in content["passes"]:
        leave_pass(project.artifacts / f"pass-{record['pass']}", record["pass"], record["kind"])
    return project


def leave_pass(folder, number, kind):
    labels = {"judge": {"age": ["young", "middle", "old"], "glasses": ["without", "with"]}, "truth": {}}
    SampleWriter(folder / "sample").finish(labels, {"tiles": made_up_run.tiles(number)})
    if kind != "generator":
        write_json(folder / "train_flow" / "history.json", made_up_run.history(kind))
        StepFolder(folder / "train_flow", "").finish({"beta": {"hair:short": 0.9512, "hair:long": -0.9512}}, 1.0)
    if kind == "debias":
        write_json(folder / "fit_moments" / "moments.json", made_up_run.MOMENTS)


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_writes_the_page_and_the_plots_and_leaves_the_metrics_alone(project):
    before = (project.reports / "metrics.json").read_bytes()
    page = report.run(project)
    written = everything(project.reports)
    assert {str(path) for path in written} == {
        "index.html",
        "metrics.json",
        "plots/bias.csv",
        "plots/grid.png",
        "plots/quality.csv",
        "plots/shares.csv",
        "plots/training.csv",
        "plots/watched.csv",
    }
    assert (project.reports / "metrics.json").read_bytes() == before
    html = page.read_text(encoding="utf-8")
    for text in ("Asking for smile", "seed 1", "0.951", "made_up_run:record", sha256_of(made_up_run.__file__)):
        assert text in html
    report.run(project)
    assert everything(project.reports) == written


def test_classes_stand_in_the_order_of_the_parameters(project):
    shares = report.gather(project).metrics.target
    assert list(shares) == ["short", "long"], "metrics.json sorts its keys"


def test_what_is_watched_stands_in_the_order_of_the_parameters_and_of_who_reads_it(project):
    watched = report.gather(project).metrics.passes[1].watched
    assert list(watched) == ["glasses", "age"]
    assert list(watched["age"].target) == ["young", "middle", "old"]
    assert watched["age"].target["old"] == 0.2


def test_what_the_parameters_no_longer_watch_is_still_shown(project):
    path = project.reports / "metrics.json"
    content = json.loads(path.read_text())
    for record in content["passes"]:
        record["watched"]["beard"] = record["watched"].pop("glasses")
    write_json(path, content)
    assert list(report.gather(project).metrics.passes[0].watched) == ["age", "beard"]


def test_the_plots_hold_the_numbers(project):
    report.run(project)
    plots = project.reports / "plots"
    shares = pd.read_csv(plots / "shares.csv")
    assert list(shares.columns) == ["pass", "kind", "source", "label", "value", "low", "high", "target"]
    assert len(shares) == 3 * 3 * 2
    judged = shares[(shares["source"] == "judge") & (shares["label"] == "long")]
    assert judged["value"].tolist() == [0.5, 0.84, 0.507]
    bias = pd.read_csv(plots / "bias.csv")
    readers = ["classifier", "judge", "truth"]
    assert list(bias.columns[:4]) == ["pass", *readers]
    assert set(bias.columns[4:]) == {
        f"{each}_{name}" for each in readers for name in ("total_variation", "discrepancy")
    }
    assert bias["truth_total_variation"][1] == pytest.approx(0.34)
    assert bias["judge"][1] == pytest.approx(0.2534, abs=1e-3)
    quality = pd.read_csv(plots / "quality.csv")
    assert quality["recall"].tolist() == pytest.approx([0.871, 0.671, 0.671])
    assert quality["identity_diversity_high"].tolist() == [1.052] * 3
    assert quality["frechet_chance"].tolist() == [0.377] * 3
    watched = pd.read_csv(plots / "watched.csv")
    old = watched[(watched["attribute"] == "age") & (watched["label"] == "old") & (watched["source"] == "truth")]
    assert old["value"].tolist() == [0.2, 0.35, 0.35]
    assert old["target"].tolist() == [0.2] * 3
    training = pd.read_csv(plots / "training.csv")
    assert training["step"].tolist() == [*range(41), *range(40, 81)]
    assert training["pass"].tolist() == [1] * 41 + [2] * 41
    grid = np.asarray(Image.open(plots / "grid.png"))
    assert grid.shape == (3 * 8, 16 * 8, 3)
    assert (grid[8:16, 8:16] == made_up_run.tiles(1)[1]).all()


def test_a_run_that_measured_little_leaves_tables_that_can_be_drawn(project):
    content = made_up_run.least(made_up_run.content()) | {"experiment": project.params.experiment}
    for record in content["passes"]:
        del record["control"]["identity.diversity"]
    write_json(project.reports / "metrics.json", content)
    report.run(project)
    quality = pd.read_csv(project.reports / "plots" / "quality.csv")
    assert quality["pass"].tolist() == [0, 1, 2]
    assert quality["recall"].isna().all()
    assert (project.reports / "plots" / "watched.csv").read_text().strip() == ""


def test_a_generator_alone_has_no_curves_but_a_report(project):
    write_json(
        project.reports / "metrics.json",
        made_up_run.content(["generator"]) | {"experiment": project.params.experiment},
    )
    assert "The generator alone" in report.run(project).read_text(encoding="utf-8")
    assert (project.reports / "plots" / "training.csv").read_text().strip() == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experiment": "another"}, r"describes 'another', expected 'world-no-makeup'; run `dvc repro`"),
        (
            {name: made_up_run.content(target=(0.4, 0.6))[name] for name in ("target", "passes", "confirmation")},
            r"describes \{'long': 0\.6, 'short': 0\.4\}, expected",
        ),
        ({"passes": []}, r"passes: List should have at least 1 item"),
    ],
)
def test_figures_of_another_experiment_are_refused(project, change, message):
    content = made_up_run.content() | {"experiment": project.params.experiment} | change
    write_json(project.reports / "metrics.json", content)
    with pytest.raises(DataError, match=message):
        report.run(project)
    assert not (project.reports / "index.html").exists()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("reports/metrics.json", r"metrics\.json does not exist"),
        (
            "artifacts/world-no-makeup/pass-1/sample/pictures.safetensors",
            r"cannot be read .*; run `promptgen run`",
        ),
        ("artifacts/world-no-makeup/pass-1/sample/samples.json", r"samples\.json does not exist; run the step"),
        ("artifacts/world-no-makeup/pass-2/train_flow/history.json", r"history\.json does not exist; run the step"),
    ],
)
def test_lost_files_are_named_with_the_way_out(project, lost, message):
    (project.root / lost).unlink()
    with pytest.raises(DataError, match=message):
        report.run(project)


@pytest.mark.parametrize("name", ["pictures.safetensors", "samples.json"])
def test_damaged_samples_are_no_traceback(project, name):
    (project.artifacts / "pass-0" / "sample" / name).write_text("[]")
    with pytest.raises(DataError, match=r"pass-0/sample cannot be read"):
        report.run(project)


def test_a_reports_folder_that_cannot_be_written_is_an_error_without_half_a_file(project):
    (project.reports / "plots").write_text("in the way")
    with pytest.raises(StorageError, match="move that file away"):
        report.run(project)
    assert not (project.reports / "index.html").exists()


def test_ids_of_the_mlflow_runs_are_shown_when_mlflow_knows_them(project):
    from steps.recording.mlflow_store import tracking_uri

    folder = project.artifacts / "tracking" / project.fingerprint[:16]
    state = {"offset": 1, "experiment": "1", "runs": {"loop": "a1b2c3d4e5"}}
    write_json(folder / "mlflow.json", {tracking_uri(project.root): state})
    assert "a1b2c3d4e5" in report.run(project).read_text(encoding="utf-8")


def test_the_samples_step_writes_what_the_report_reads(project):
    pictures = Samples(project.artifacts / "pass-0" / "sample").pictures()
    assert pictures["tiles"].dtype == np.uint8
