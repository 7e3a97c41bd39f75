"""The steps of a pass, on a world of the test's own: what they write, when they do nothing, and how they refuse."""

from __future__ import annotations

import errno
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from promptgen.build import build_chain
from promptgen.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    InfeasibleTargetError,
    ModelFileError,
    NonFiniteEnergyError,
    StorageError,
)
from promptgen.files import folder_lock, read_json
from promptgen.tracking import NullTracker
from steps import check, common, estimate_bias, evaluate, fetch, fit_moments, sample, train_flow
from steps.common import Pass, Project
from steps.records import STEPS, SUMMARY_NAME, pass_record, write_metrics
from tests import tiny

MODULES = {
    "fit_moments": fit_moments,
    "train_flow": train_flow,
    "sample": sample,
    "evaluate": evaluate,
    "estimate_bias": estimate_bias,
}


def project_in(folder: Path, content: dict | None = None) -> Project:
    return Project.load(tiny.write_params(folder, content))


def run_pass(project: Project, number: int) -> dict:
    """Run the steps of a pass and return their results by step."""
    this = Pass(project, number)
    return {step: MODULES[step].run(this, NullTracker()) for step in STEPS[this.kind]}


def changed(section: str, **values: object) -> dict:
    """Return the content of the tiny params.yaml with other values in one section."""
    content = tiny.params()
    return content | {section: content[section] | values}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A project of which the passes 0 to 2 have been run."""
    project = project_in(tmp_path_factory.mktemp("project"))
    for number in range(3):
        run_pass(project, number)
    return project


def test_passes_control_and_correct(done):
    """The control brings what it asks for and a bias with it; de-biasing takes the bias back and keeps the rest."""
    first, control, last = (pass_record(Pass(done, number)) for number in range(3))
    for reader in ("classifier", "judge", "truth"):
        name = f"makeup.without.{reader}"
        assert first["shares"][reader]["long"]["value"] == pytest.approx(0.38, abs=0.06)
        assert control["control"][name]["value"] > first["control"][name]["value"] + 0.25
        assert control["shares"][reader]["long"]["value"] > first["shares"][reader]["long"]["value"] + 0.2
        assert abs(last["shares"][reader]["long"]["value"] - 0.5) < 0.1
        assert last["control"][name]["value"] > first["control"][name]["value"] + 0.2


def test_record_has_the_agreed_form(done):
    record = pass_record(Pass(done, 2))
    assert set(record) == {
        "pass", "kind", "n", "shares", "kl", "corrected", "control", "fit", "seconds", "generator_evaluations",
    }  # fmt: skip
    assert set(record["seconds"]) == set(STEPS["debias"])
    assert set(record["fit"]) == {"ess_fraction", "log_z", "kl_gap", "tail_index", "trust", "n"}
    assert pass_record(Pass(done, 0))["fit"] is None
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
    assert summary["last"]["kl"] == records[2]["kl"]["judge"]
    assert summary["first"]["shares"]["long"] == records[0]["shares"]["judge"]["long"]["value"]
    assert summary["last"]["ess_fraction"] == records[2]["fit"]["ess_fraction"]["value"]
    assert not any(isinstance(value, list) for part in summary.values() if isinstance(part, dict) for value in part)


def test_samples_hold_labels_and_no_pictures(done):
    arrays, labels = sample.load_samples(Pass(done, 1).folder("sample"))
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
    arrays, _ = sample.load_samples(Pass(done, 0).folder("sample"))
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
    bias = read_json(Pass(done, 1).folder("estimate_bias") / estimate_bias.BIAS_NAME)
    moved = bias["moved"]["long"]
    assert 0 < moved["low"] < moved["value"] < moved["high"]
    assert moved["value"] == pytest.approx(-bias["moved"]["short"]["value"])
    assert read_json(Pass(done, 0).folder("estimate_bias") / estimate_bias.BIAS_NAME)["moved"] == {}


def test_the_ascent_starts_at_the_fitted_multipliers_of_each_label(done):
    """Labels are not in alphabetical order, files are: a mix-up would start the training on the wrong side."""
    this = Pass(done, 2)
    fitted = read_json(this.folder("fit_moments") / "moments.json")["beta"]
    first = read_json(this.folder("train_flow") / "history.json")[0]
    assert list(fitted) != ["hair:short", "hair:long"]
    assert abs(fitted["hair:short"]) > 0.3
    for label, beta in fitted.items():
        assert np.sign(first[f"beta/{label}"]) == np.sign(beta)


def test_done_work_is_not_done_again(done, monkeypatch):
    def fail(*arguments, **keywords):
        raise AssertionError("the work was done again")

    before = {path: path.stat().st_mtime_ns for path in done.artifacts.rglob("*") if path.is_file()}
    for module, name in ((train_flow, "_train"), (sample, "_sample"), (evaluate, "_evaluate"), (fit_moments, "_fit")):
        monkeypatch.setattr(module, name, fail)
    first = [run_pass(done, number) for number in range(3)]
    assert first == [run_pass(done, number) for number in range(3)]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_params_make_other_work(tmp_path):
    content = tiny.params()
    first = run_pass(project_in(tmp_path, content), 0)
    content["debias"]["target"] = {"short": 0.6, "long": 0.4}
    second = run_pass(project_in(tmp_path, content), 0)
    assert first["sample"] == second["sample"]  # samples do not depend on the target
    assert first["evaluate"]["fingerprint"] != second["evaluate"]["fingerprint"]
    content["seed"] = 2
    third = run_pass(project_in(tmp_path, content), 0)
    assert third["sample"]["fingerprint"] != second["sample"]["fingerprint"]
    assert third["evaluate"]["result"]["shares"] != second["evaluate"]["result"]["shares"]


def test_other_code_makes_other_work(tmp_path, monkeypatch):
    project = project_in(tmp_path)
    first = run_pass(project, 0)
    monkeypatch.setattr(common, "_code_sha256", lambda *steps: f"changed {steps}")
    assert run_pass(project, 0)["sample"]["fingerprint"] != first["sample"]["fingerprint"]


def test_a_damaged_output_is_made_again(tmp_path):
    project = project_in(tmp_path)
    run_pass(project, 0)
    samples = Pass(project, 0).folder("sample") / sample.SAMPLES_NAME
    content = samples.read_bytes()
    samples.write_bytes(content[:-1])
    sample.run(Pass(project, 0), NullTracker())
    assert samples.read_bytes() == content


def test_product_of_attributes_can_be_debiased(tmp_path):
    content = tiny.params()
    content["debias"]["attribute"] = "hair x makeup"
    content["debias"]["target"] = {
        f"{hair} x {makeup}": 0.25 for hair in ("short", "long") for makeup in ("without", "with")
    }
    project = project_in(tmp_path, content)
    check.run(project)
    shares = run_pass(project, 0)["evaluate"]["result"]["shares"]["judge"]
    assert sum(share["value"] for share in shares.values()) == pytest.approx(1)


def test_without_control_the_generator_itself_is_debiased(tmp_path):
    content = tiny.params()
    content["control"] = None
    content["evaluation"]["identity"] = None
    project = project_in(tmp_path, content)
    assert run_pass(project, 0)["estimate_bias"]["result"]["stop"] is None
    assert run_pass(project, 0)["evaluate"]["result"]["control"] == {}
    last = run_pass(project, 1)["evaluate"]["result"]
    assert last["kind"] == "debias"
    assert abs(last["shares"]["truth"]["long"]["value"] - 0.5) < 0.1


@pytest.mark.parametrize(
    ("number", "control", "contains", "expected"),
    [
        (0, True, True, None),  # what is asked for has not been trained yet
        (0, False, True, estimate_bias.REACHED),
        (1, True, False, None),
        (1, True, True, estimate_bias.REACHED),
        (3, True, True, estimate_bias.REACHED),
        (3, True, False, estimate_bias.EXHAUSTED),
        (2, False, False, estimate_bias.EXHAUSTED),
    ],
)
def test_loop_stops_at_the_target_or_at_the_maximum(tmp_path, number, control, contains, expected):
    content = tiny.params()
    content["control"] = content["control"] if control else None
    assert estimate_bias.decide(Pass(project_in(tmp_path, content), number), contains) == expected


def test_interval_decides_not_the_value(done, tmp_path):
    """With a target just outside the judge's interval the loop goes on, just inside it stops."""
    share = pass_record(Pass(done, 1))["shares"]["judge"]["long"]
    shutil.copytree(done.artifacts, tmp_path / "artifacts/tiny")
    for target, contains in ((share["low"] - 0.01, False), (share["low"] + 0.01, True)):
        content = tiny.params()
        content["debias"]["target"] = {"short": 1 - target, "long": target}
        project = project_in(tmp_path, content)
        assert estimate_bias.run(Pass(project, 1), NullTracker())["result"]["contains_target"] is contains


# Bad input: each a clear line with the way out, and nothing half-written.


def test_steps_out_of_order_are_refused(tmp_path):
    project = project_in(tmp_path)
    with pytest.raises(DataError, match=r"samples.npz is missing; write it with `python -m steps.sample --pass 0`"):
        evaluate.run(Pass(project, 0), NullTracker())
    with pytest.raises(DataError, match=r"write it with `python -m steps.train_flow --pass 1`"):
        sample.run(Pass(project, 1), NullTracker())
    with pytest.raises(DataError, match=r"moments.json is missing|chain.safetensors is missing"):
        train_flow.run(Pass(project, 2), NullTracker())
    with pytest.raises(ConfigError, match="pass 0 is the generator as it is, and trains nothing"):
        train_flow.run(Pass(project, 0), NullTracker())
    with pytest.raises(ConfigError, match="pass 1 is no de-biasing pass; these start at 2"):
        fit_moments.run(Pass(project, 1), NullTracker())


def test_broken_energy_is_named(tmp_path):
    content = tiny.params()
    content["control"]["energies"]["wish"]["function"] = "tests.tiny:broken_wish"
    with pytest.raises(NonFiniteEnergyError, match="broken_wish"):
        train_flow.run(Pass(project_in(tmp_path, content), 1), NullTracker())
    assert not (tmp_path / "artifacts/tiny/pass-1/train_flow/manifest.json").exists()


def test_unreachable_target_names_the_class(tmp_path):
    content = tiny.params()
    content["control"] = None
    content["debias"]["classifier"]["factory"] = "tests.tiny:short_only"
    project = project_in(tmp_path, content)
    run_pass(project, 0)
    with pytest.raises(InfeasibleTargetError, match=r"target 0.5 of 'hair:\w+' cannot be reached, observed share [01]"):
        fit_moments.run(Pass(project, 1), NullTracker())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribute": "hat"}, "unknown attribute 'hat', expected one of hair, makeup"),
        ({"attribute": "hari"}, "did you mean 'hair'"),
        (
            {"target": {"short": 0.5, "lnog": 0.5}},
            "unknown class 'lnog', expected one of short, long; did you mean 'long'",
        ),
    ],
)
def test_unknown_labels_are_refused_before_any_work(tmp_path, change, message):
    content = tiny.params()
    content["debias"] |= change
    with pytest.raises(ConfigError, match=message):
        check.run(project_in(tmp_path, content))


def test_parts_have_to_fit_the_latent(tmp_path):
    content = tiny.params()
    content["flow"]["parts"] = [2, 3]
    with pytest.raises(DataError, match=r"the latent has 4 dimensions, flow.parts has 2 \+ 3 = 5"):
        check.run(project_in(tmp_path, content))


def test_a_condition_that_nothing_reads_is_told(tmp_path, caplog):
    content = tiny.params()
    content["control"]["condition"] = {"light": [-1, 1]}
    check.run(project_in(tmp_path, content))
    assert not caplog.messages  # a custom energy may read it
    content["control"]["energies"] = {
        "makeup": {
            "type": "classifier",
            "weight": 1.0,
            "classifier": content["debias"]["classifier"],
            "labels": {"makeup": "without"},
        }
    }
    check.run(project_in(tmp_path, content))
    assert "no energy reads control.condition: the flow is told of light" in caplog.text


def test_measured_label_has_to_exist(tmp_path):
    content = tiny.params()
    content["control"]["measure"] = {"makeup": "witout"}
    with pytest.raises(ConfigError, match="unknown class of 'makeup' 'witout'"):
        check.run(project_in(tmp_path, content))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tests.nowhere:x", r"params.yaml names tests.nowhere:x, .*No module named 'tests.nowhere'"),
        ("tests.tiny:nothing", "has no attribute 'nothing'"),
        ("tests.tiny:embedder", "tests.tiny:embedder returned a function that has no prior and no image_shape"),
    ],
)
def test_wrong_factory_is_named(tmp_path, path, message):
    content = tiny.params()
    content["generator"]["factory"] = path
    with pytest.raises(ConfigError, match=message):
        check.run(project_in(tmp_path, content))


def test_wrong_arguments_of_a_factory_are_named(tmp_path):
    content = tiny.params()
    content["debias"]["judge"]["arguments"] = {"thresold": 1.0}
    with pytest.raises(ConfigError, match=r"tests.tiny:TinyClassifier does not take the arguments .*'thresold'"):
        check.run(project_in(tmp_path, content))


def test_missing_and_damaged_weight_files_are_told(tmp_path):
    content = tiny.params()
    content["debias"]["judge"] = "world-judge"
    project = project_in(tmp_path, content)
    with pytest.raises(
        ModelFileError, match=r"world-judge.safetensors is missing; fetch it with `python -m steps.fetch"
    ):
        check.run(project)
    (path,) = fetch.run("world-judge", project.models)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"delete it and fetch it again with `python -m steps.fetch world-judge`"):
        check.run(project)


def test_a_model_of_another_kind_is_refused(tmp_path):
    content = tiny.params()
    content["debias"]["judge"] = "world-generator"
    with pytest.raises(ConfigError, match="the model world-generator is a generator, expected a classifier"):
        check.run(project_in(tmp_path, content))


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path):
    (tmp_path / "reports").write_text("a file where a folder is needed")
    with pytest.raises(StorageError, match=r"cannot write .*reports: a file is where a folder is needed"):
        check.run(project_in(tmp_path))
    assert not list(tmp_path.rglob("manifest.json"))


def test_read_only_reports_are_told_before_any_work(tmp_path, monkeypatch):
    def refuse(*, dir: Path):  # noqa: A002
        if Path(dir).name == "reports":
            raise OSError(errno.EROFS, "Read-only file system")
        return real(dir=dir)

    real = check.tempfile.TemporaryFile
    monkeypatch.setattr(check.tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match=r"reports: the file system is read-only: choose another folder"):
        check.run(project_in(tmp_path))


def test_a_full_disk_leaves_no_half_step(tmp_path, monkeypatch):
    def full(path: Path, content: bytes) -> int:
        if path.suffix == ".npz":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    real = Path.write_bytes
    project = project_in(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match=r"cannot write .*samples.npz: no space is left: free some"):
        sample.run(Pass(project, 0), NullTracker())
    folder = Pass(project, 0).folder("sample")
    assert not [path for path in folder.iterdir() if path.suffix in (".npz", ".png", ".json")]
    monkeypatch.undo()
    sample.run(Pass(project, 0), NullTracker())
    assert (folder / "manifest.json").exists()


def test_a_held_folder_is_refused(tmp_path):
    project = project_in(tmp_path)
    with (
        folder_lock(Pass(project, 0).folder("sample")),
        pytest.raises(StorageError, match=r"sample is held by another run: wait for it to end, or stop it"),
    ):
        sample.run(Pass(project, 0), NullTracker())


def test_a_damaged_state_is_told(tmp_path):
    project = project_in(tmp_path)
    this = Pass(project, 1)
    train_flow.run(this, NullTracker())
    before = this.sha256(this.chain)
    (this.folder("train_flow") / "manifest.json").unlink()
    train_flow.run(this, NullTracker())
    assert this.sha256(this.chain) == before
    this.chain.write_bytes(b"no chain")
    with pytest.raises(CheckpointError):
        this.generator()


@pytest.mark.parametrize(
    ("values", "reason"), [({"max_passes": 0}, estimate_bias.MEASURED), ({"training": None}, estimate_bias.FITTED)]
)
@pytest.mark.parametrize("contains_target", [True, False])
def test_without_debiasing_the_loop_ends_after_the_control(tmp_path, values, reason, contains_target):
    project = project_in(tmp_path, changed("debias", **values))
    assert estimate_bias.decide(Pass(project, 0), contains_target) is None
    assert estimate_bias.decide(Pass(project, 1), contains_target) == reason
    alone = project_in(tmp_path, changed("debias", **values) | {"control": None})
    assert estimate_bias.decide(Pass(alone, 0), contains_target) == reason


def test_multipliers_alone_are_fitted_without_a_flow(tmp_path):
    project = project_in(tmp_path, changed("debias", training=None) | {"control": None})
    fitted = fit_moments.run(Pass(project, 0).after, NullTracker())["result"]
    assert fitted["beta"]["hair:short"] < 0 < fitted["beta"]["hair:long"]
    assert fitted["achieved"]["hair:long"] == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(ConfigError, match=r"debias\.training is null: the multipliers are fitted and no flow"):
        train_flow.run(Pass(project, 1), NullTracker())


def test_stale_passes_are_cleared_away(tmp_path):
    project = project_in(tmp_path)
    for number in range(4):
        (project.artifacts / f"pass-{number}" / "sample").mkdir(parents=True)
    project.discard_passes_after(1)
    assert sorted(path.name for path in project.artifacts.iterdir()) == ["pass-0", "pass-1"]


def run_command(monkeypatch, module, *arguments: str) -> int:
    """Run a step's command line as `python -m` would; return its exit status."""
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_commands_end_with_one_line(tmp_path, monkeypatch, capsys):
    path = str(tiny.write_params(tmp_path))
    assert run_command(monkeypatch, "steps.sample", "--params", path, "--pass", "0") == 0
    assert capsys.readouterr().out.startswith("artifacts/tiny/pass-0/sample: ")
    assert run_command(monkeypatch, "steps.sample", "--params", path, "--pass", "9") == 2
    error = capsys.readouterr().err
    assert error == "error: pass 9 is not in this experiment, whose passes are 0 to 3\n"
    assert run_command(monkeypatch, "steps.check", "--params", str(tmp_path / "nowhere.yaml")) == 2
    assert capsys.readouterr().err.startswith("error: cannot read ")
    assert run_command(monkeypatch, "steps.fetch", "world-jugde", "--models", str(tmp_path)) == 2
    assert "did you mean world-judge" in capsys.readouterr().err


def test_shares_are_corrected_for_errors_that_a_card_tells(tmp_path):
    """The judge takes a tenth of either label for the other; its card says so, and the corrected shares are true."""
    content = tiny.params()
    content["debias"]["judge"] = "unsure"
    project = project_in(tmp_path, content)
    card = {
        "kind": "classifier", "type": "world-network", "licence": "none", "files": [{"file": "x", "urls": []}],
        "quality": {"hair": {"confusion": [[900, 100], [100, 900]]}},
    }  # fmt: skip
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump({"unsure": card}))
    labels = np.repeat([0, 1], [700, 300])
    read = {"judge.hair": np.repeat([0, 1], [660, 340]), "truth.hair": labels, "probability.judge": np.zeros((1000, 2))}
    names = {"judge": {"hair": ["short", "long"]}, "truth": {"hair": ["short", "long"]}}
    folder = Pass(project, 0).folder("sample")
    folder.mkdir(parents=True)
    np.savez(folder / sample.SAMPLES_NAME, labels=np.array(json.dumps(names)), **read)
    record = evaluate.run(Pass(project, 0), NullTracker())["result"]
    corrected = record["corrected"]["judge"]["long"]
    assert set(record["corrected"]) == {"judge"}
    assert corrected["value"] == pytest.approx(0.3)
    assert corrected["low"] < 0.3 < corrected["high"]
    assert record["shares"]["judge"]["long"]["value"] == pytest.approx(0.34)
