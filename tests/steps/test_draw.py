"""Pictures from a trained pass: as its flow gives them, exactly, under a condition, with labels, and again."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from promptgen.energies.base import WeightedSum
from promptgen.energies.moment import MomentEnergy
from promptgen.errors import ConfigError, DataError, StorageError
from promptgen.files import read_json, write_json
from promptgen.flows.exact import chain_log_weights
from promptgen.flows.sampling import draw as samples_of
from promptgen.flows.sampling import latent_blocks
from promptgen.tracking import NullTracker
from steps import fit_moments, train_flow
from steps.draw import Request, described, run
from steps.drawing.gallery import SAMPLES_NAME, SUMMARY_NAME
from steps.shared.common import Pass, Project
from steps.shared.manifest import StepFolder
from steps.training.plan import trained_energy
from tests import tiny
from tests.commands import typed


def trained(folder, content=None, passes=3):
    """Return a project whose flows are trained, and that was never sampled."""
    project = Project.load(tiny.write_params(folder, content))
    for number in range(1, passes):
        this = Pass(project, number)
        if this.kind == "debias":
            fit_moments.run(this, NullTracker())
        train_flow.run(this, NullTracker())
    return project


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("project"))


def drawn(this, folder, n=20, **options):
    """Draw pictures; return the rows of the table and the summary."""
    summary = run(this, Request(n=n, out=folder, seed=5, **options), NullTracker())
    with (folder / SAMPLES_NAME).open(newline="") as file:
        return list(csv.DictReader(file)), summary


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pictures_are_those_of_the_flow(done, tmp_path):
    rows, summary = drawn(Pass(done, 1), tmp_path / "out", 70)
    (expected,) = samples_of(Pass(done, 1).generator(), 70, seed=5, stream="draw", batch=128)
    assert [row["file"] for row in rows] == [f"{number:06d}.png" for number in range(70)]
    assert [row["index"] for row in rows] == [str(number) for number in range(70)]
    assert list(rows[0]) == ["file", "seed", "index"]
    for row, image in zip(rows, expected.image, strict=True):
        picture = np.asarray(Image.open(tmp_path / "out" / row["file"]))
        assert np.abs(picture / 255 - image.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    assert summary == read_json(tmp_path / "out" / SUMMARY_NAME)
    assert (summary["pass"], summary["n"], summary["seed"], summary["exact"]) == (1, 70, 5, None)


def test_the_generator_alone_is_pass_0(done, tmp_path):
    rows, _ = drawn(Pass(done, 0), tmp_path / "out", 3)
    assert len(rows) == 3
    with pytest.raises(ConfigError, match="pass 0 has no flow and no energy"):
        drawn(Pass(done, 0), tmp_path / "exact", exact="resample")


def test_a_plain_draw_needs_no_control_model(done, tmp_path):
    """Not even the function of the energy is there."""
    content = tiny.params()
    content["control"]["energies"]["wish"]["function"] = "tests.nowhere:wish"
    project = Project.load(tiny.write_params(tmp_path, content))
    shutil.copytree(Pass(done, 1).folder("train_flow"), Pass(project, 1).folder("train_flow"))
    assert len(drawn(Pass(project, 1), tmp_path / "out")[0]) == 20
    was = r"control\.energies\.wish\.function was \"tests\.tiny:wish\" and is \"tests\.nowhere:wish\""
    with pytest.raises(ConfigError, match=was):
        drawn(Pass(project, 1), tmp_path / "exact", exact="resample")


def changed(done, folder, number, **sections):
    """Return a pass of the trained project under other parameters."""
    content = tiny.params()
    for name, section in sections.items():
        content[name] = {**(content[name] or {}), **section} if isinstance(section, dict) else section
    folder.mkdir()
    shutil.copytree(done.root / "artifacts", folder / "artifacts")
    return Pass(Project.load(tiny.write_params(folder, content)), number)


WISH = tiny.params()["control"]["energies"]["wish"]


@pytest.mark.parametrize(
    ("number", "section", "content", "different"),
    [
        (1, "control", {"energies": {"wish": {**WISH, "weight": 2.0}}}, "energies.wish.weight was 1.0 and is 2.0"),
        (1, "control", {"energies": {"wish": WISH, "more": WISH}}, "control.energies.more is new"),
        (1, "control", None, "it was a control pass, and is a debias pass now"),
        (2, "debias", {"target": {"short": 0.7, "long": 0.3}}, "debias.target.long was 0.5 and is 0.3"),
        (2, "debias", {"attribute": "makeup", "target": {"with": 0.5, "without": 0.5}}, 'was "hair" and is "makeup"'),
        (2, "debias", {"dual": None}, 'debias.dual was "set" and is null'),
    ],
)
def test_exact_samples_of_a_pass_that_was_trained_for_something_else_are_refused(
    done, tmp_path, number, section, content, different
):
    this = changed(done, tmp_path / "project", number, **{section: content})
    with pytest.raises(ConfigError) as refused:
        drawn(this, tmp_path / "out", exact="resample")
    assert f"pass {number} was not trained for the present params.yaml: " in str(refused.value)
    assert different in str(refused.value)
    assert f"`promptgen step train_flow --pass {number}`" in str(refused.value)
    assert not (tmp_path / "out").exists()
    assert drawn(this, tmp_path / "plain", 2)[1]["exact"] is None


def test_training_again_mends_it(done, tmp_path):
    this = changed(done, tmp_path / "project", 1, control={"energies": {"wish": {**WISH, "weight": 2.0}}})
    train_flow.run(this, NullTracker())
    drawn(this, tmp_path / "out", exact="resample", proposals=100)


@pytest.mark.parametrize("number", [1, 2])
def test_parameters_that_say_nothing_of_the_purpose_may_change(done, tmp_path, number):
    content = tiny.params()
    this = changed(
        done,
        tmp_path / "project",
        number,
        seed=2,
        control={"training": {**content["control"]["training"], "steps": 50}},
        debias={
            "judge": content["debias"]["classifier"],
            "samples": 600,
            "bootstrap": 30,
            "training": {**content["debias"]["training"], "learning_rate": 0.01},
            "dual": {**content["debias"]["dual"], "rate": 0.6},
        },
        flow={"hidden": 32},
        evaluation={"samples": 1024, "batch": 32, "grid": 4},
        tracking={"experiment": "other"},
        schedule={"cron": "0 3 * * *", "timezone": "Europe/Berlin"},
    )
    rows, summary = drawn(this, tmp_path / "here", exact="resample", proposals=100)
    then, before = drawn(Pass(done, number), tmp_path / "there", exact="resample", proposals=100)
    assert rows == then
    assert summary == before


def rewritten(this, change):
    """Change the manifest of the training of a pass."""
    path = this.folder("train_flow") / "manifest.json"
    manifest = read_json(path)
    change(manifest)
    write_json(path, manifest)


@pytest.mark.parametrize("number", [1, 2])
def test_another_version_of_the_code_alone_is_no_difference(done, tmp_path, number):
    """Nor is a parameter that it did not know yet."""
    this = changed(done, tmp_path / "project", number)

    def older(manifest):
        manifest["fingerprint"] = "0" * 64
        manifest["made_from"]["inputs"]["code"] = "0" * 64
        if number == 2:
            del manifest["made_from"]["params"]["weight"]

    rewritten(this, older)
    _, summary = drawn(this, tmp_path / "out", exact="resample", proposals=100)
    assert not any("trained for" in doubt for doubt in summary["exact"]["doubts"])


@pytest.mark.parametrize(
    ("older", "doubt"),
    [
        (lambda found: found.pop("made_from"), "what pass 1 was trained for is unknown (an earlier version"),
        (
            lambda found: found["made_from"]["params"]["energies"]["wish"].update(gone=1),
            "what pass 1 was trained for is unknown (energies.wish.gone is unknown",
        ),
        (
            lambda found: found["made_from"]["inputs"].update({"tests.tiny:wish": "0" * 64}),
            "tests.tiny:wish has changed since pass 1 was trained",
        ),
    ],
)
def test_what_cannot_be_told_is_a_doubt(done, tmp_path, older, doubt):
    this = changed(done, tmp_path / "project", 1)
    rewritten(this, older)
    _, summary = drawn(this, tmp_path / "out", exact="resample", proposals=100)
    assert summary["exact"]["doubts"][0].startswith(doubt)
    assert read_json(tmp_path / "out" / SUMMARY_NAME)["exact"]["doubts"] == summary["exact"]["doubts"]


def test_other_multipliers_matter_only_where_training_left_them_alone(done, tmp_path):
    this = changed(done, tmp_path / "project", 2)
    rewritten(this, lambda found: found["made_from"]["inputs"].update({"moments.json": "0" * 64}))
    drawn(this, tmp_path / "moved", exact="resample", proposals=100)
    fixed = changed(done, tmp_path / "fixed", 2, debias={"dual": None})

    def then(manifest):
        manifest["made_from"]["params"]["dual"] = None
        manifest["made_from"]["inputs"]["moments.json"] = "0" * 64

    rewritten(fixed, then)
    with pytest.raises(ConfigError, match=r"moments\.json is now another file"):
        drawn(fixed, tmp_path / "out", exact="resample", proposals=100)


@pytest.mark.parametrize("method", ["resample", "metropolis"])
def test_exact_pictures_are_chosen_from_the_plain_ones_by_their_weights(done, tmp_path, method):
    this = Pass(done, 1)
    rows, summary = drawn(this, tmp_path / "exact", 100, exact=method, proposals=400)
    chain = this.generator()
    log_weights = chain_log_weights(
        chain, trained_energy(this), torch.cat(list(latent_blocks(chain.prior, 400, 5, "draw"))), seed=5
    )
    indices = [int(row["index"]) for row in rows]
    assert max(indices) < 400
    for row in rows:
        assert float(row["log_weight"]) == pytest.approx(float(log_weights[int(row["index"])]), abs=1e-4)
    plain, _ = drawn(this, tmp_path / "plain", max(indices) + 1)
    for row in rows:
        assert (tmp_path / "exact" / row["file"]).read_bytes() == (
            tmp_path / "plain" / plain[int(row["index"])]["file"]
        ).read_bytes()
    exact = summary["exact"]
    assert exact["distinct"] == len(set(indices))
    assert 0 < exact["effective"] <= 400
    assert (exact["acceptance"] is None) == (method == "resample")
    line = described(exact)
    assert line.startswith(f"{method}: {exact['distinct']} different samples of 400 proposals")
    assert f"weights {exact['fit']['trust']}" in line


def test_the_energy_of_a_pass_is_the_one_it_was_trained_for(done):
    """That of a de-biasing pass has the multipliers where dual ascent left them."""
    assert isinstance(trained_energy(Pass(done, 1)), WeightedSum)
    energy = trained_energy(Pass(done, 2))
    assert isinstance(energy, MomentEnergy)
    found = StepFolder(Pass(done, 2).folder("train_flow"), "").result()
    assert dict(zip(energy.names, energy.beta.tolist(), strict=True)) == pytest.approx(found["beta"])
    fitted = read_json(Pass(done, 2).folder("fit_moments") / "moments.json")["beta"]
    assert fitted != found["beta"]


def test_a_pass_is_exact_relative_to_the_chain_before_it(done, tmp_path):
    """Its fit on other samples is that of its training, whose energy and multipliers are thus the same."""
    this = Pass(done, 2)
    _, summary = drawn(this, tmp_path / "out", 100, exact="resample", proposals=4000)
    chain = this.generator()
    eps = torch.cat(list(latent_blocks(chain.prior, 4000, 6, "other")))
    again = chain_log_weights(chain, trained_energy(this), eps, seed=6).exp()
    ess = float(again.sum().square() / again.square().sum()) / 4000
    assert summary["exact"]["effective"] / 4000 == pytest.approx(ess, abs=0.05)


def test_the_default_number_of_proposals_grows_with_the_pictures(done, tmp_path):
    few = drawn(Pass(done, 1), tmp_path / "few", 5, exact="resample")[1]
    assert few["exact"]["fit"]["n"] == 1000
    many = drawn(Pass(done, 1), tmp_path / "many", 150, exact="resample")[1]
    assert many["exact"]["fit"]["n"] == 1500


@pytest.mark.parametrize("options", [{"labels": True}, {"exact": "metropolis", "proposals": 100}])
def test_the_same_request_writes_the_same_bytes_also_over_an_unfinished_draw(done, tmp_path, options):
    drawn(Pass(done, 1), tmp_path / "out", **options)
    first = content_of(tmp_path / "out")
    (tmp_path / "out" / SAMPLES_NAME).unlink()
    (tmp_path / "out/000003.png").unlink()
    drawn(Pass(done, 1), tmp_path / "out", **options)
    assert content_of(tmp_path / "out") == first


def test_labels_are_words(done, tmp_path):
    rows, _ = drawn(Pass(done, 1), tmp_path / "out", labels=True)
    columns = ["classifier.hair", "classifier.makeup", "judge.hair", "judge.makeup"]
    assert list(rows[0]) == ["file", "seed", "index", *columns]
    for row in rows:
        red = int(np.asarray(Image.open(tmp_path / "out" / row["file"]))[0, 0, 0]) / 255
        if abs(red - torch.tensor(0.3).sigmoid()) > 0.01:
            assert row["classifier.hair"] == ("long" if red > torch.tensor(0.3).sigmoid() else "short")


def test_the_noise_of_a_number_is_the_same_in_every_pass_and_another_with_another_seed(done, tmp_path):
    """What the flows leave alone shows it: blue is that of pass 0, up to what they changed."""
    blue = {}
    for number, seed in ((0, 5), (1, 5), (1, 6)):
        run(Pass(done, number), Request(40, tmp_path / f"{number}-{seed}", seed), NullTracker())
        files = sorted((tmp_path / f"{number}-{seed}").glob("*.png"))
        blue[number, seed] = [np.asarray(Image.open(file))[0, 0, 2] for file in files]
    assert np.corrcoef(blue[0, 5], blue[1, 5])[0, 1] > 0.9
    assert abs(np.corrcoef(blue[0, 5], blue[1, 6])[0, 1]) < 0.5


def test_a_folder_with_other_files_is_left_alone(done, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/holiday.png").write_bytes(b"mine")
    with pytest.raises(StorageError, match=r"holds other files, such as holiday.png: choose an empty or a new folder"):
        drawn(Pass(done, 1), tmp_path / "out")
    assert content_of(tmp_path / "out") == {"holiday.png": b"mine"}
    drawn(Pass(done, 1), tmp_path / "larger", 21)
    with pytest.raises(StorageError, match=r"000020.png"):
        drawn(Pass(done, 1), tmp_path / "larger", 20)


def test_impossible_requests_are_refused_before_anything_is_written(done, tmp_path):
    for error, options in (
        (ConfigError, {"n": 0}),
        (ConfigError, {"exact": "resample", "proposals": 0}),
        (ConfigError, {"exact": "resample", "proposals": 19}),
        (DataError, {"condition": {"yaw": 0.1}}),
    ):
        with pytest.raises(error):
            drawn(Pass(done, 1), tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"write it with `promptgen step train_flow --pass 1`"):
        drawn(Pass(Project.load(tiny.write_params(tmp_path)), 1), tmp_path / "untrained")


def test_a_condition_is_given_to_all_pictures(tmp_path, caplog):
    content = tiny.conditional_params()
    content["control"]["training"]["steps"] = 60
    this = Pass(trained(tmp_path, content, passes=2), 1)
    free, _ = drawn(this, tmp_path / "free")
    assert len({row["condition.yaw"] for row in free}) == 20
    blue = {}
    for yaw in (-0.2, 0.2):
        rows, summary = drawn(this, tmp_path / f"{yaw}", condition={"yaw": yaw})
        assert {row["condition.yaw"] for row in rows} == {f"{yaw:g}"}
        assert summary["condition"] == {"yaw": yaw}
        pictures = [np.asarray(Image.open(tmp_path / f"{yaw}" / row["file"])) for row in rows]
        blue[yaw] = np.mean([picture[0, 0, 2] for picture in pictures])
    assert blue[0.2] > blue[-0.2] + 20
    with pytest.raises(ConfigError, match="exact samples need one full condition: add yaw to --condition"):
        drawn(this, tmp_path / "exact", exact="resample")
    rows, summary = drawn(this, tmp_path / "exact", condition={"yaw": 0.1}, exact="resample", proposals=100)
    assert {row["condition.yaw"] for row in rows} == {"0.1"}
    assert not caplog.messages
    drawn(this, tmp_path / "far", condition={"yaw": 0.5})
    assert caplog.messages == ["yaw = 0.5 is outside -0.2 to 0.2, for which the flow was trained"]


def test_the_command_tells_and_warns(done, tmp_path, capsys, caplog):
    common = ("--params", done.root / "params.yaml", "--pass", 1)
    exact = ("--exact", "metropolis", "--proposals", 20)
    assert typed("draw", *common, "--n", 20, "--out", tmp_path / "out", *exact) == 0
    told = capsys.readouterr().out
    assert "% accepted, effective sample size" in told
    assert f"{tmp_path / 'out'}: 20 images" in told
    assert any("the weights are not to be trusted" in message for message in caplog.messages)
    assert read_json(tmp_path / "out" / SUMMARY_NAME)["seed"] == done.params.seed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--proposals", 5), "--proposals is for --exact"),
        (("--condition", "yaw"), "expected NAME=NUMBER,..., got 'yaw'"),
        (("--condition", "yaw=0.1,tilt=2"), "there is no condition yaw, expected one of none"),
    ],
)
def test_the_command_refuses_in_one_line(done, tmp_path, capsys, arguments, message):
    common = ("--params", done.root / "params.yaml", "--pass", 1, "--n", 3, "--out", tmp_path / "out")
    assert typed("draw", *common, *arguments) == 2
    assert message in capsys.readouterr().err
