"""The steps of a pass that train on evaluations: what they share, what they write, and what they refuse."""

from __future__ import annotations

import logging

import pytest

from promptgen.errors import DataError
from promptgen.files import read_json
from promptgen.tracking import NullTracker
from steps import fit_moments, train_flow
from steps.measuring.records import pass_record
from steps.shared.common import Pass
from steps.shared.evaluations import LIST_NAME, energy_outputs
from tests import tiny
from tests.steps.projects import project_in, run_pass


@pytest.fixture(scope="module")
def reused(tmp_path_factory, fewer_steps):
    """A project of which the passes 0 to 2 have been run."""
    project = project_in(tmp_path_factory.mktemp("project"), tiny.reuse_params())
    for number in range(3):
        run_pass(project, number)
    return project


def shards(project):
    return {path.name for path in project.artifacts.glob("evaluations/*/*.safetensors")}


def test_passes_control_and_correct(reused):
    first, control, last = (pass_record(Pass(reused, number)) for number in range(3))
    name = "makeup.without.truth"
    assert control.control[name].value > first.control[name].value + 0.25
    assert control.by["truth"].shares["long"].value > 0.55
    assert abs(last.by["judge"].shares["long"].value - 0.5) < 0.08
    assert last.control[name].value > first.control[name].value + 0.2


def test_another_weight_asks_for_other_evaluations_only_where_the_energy_depends_on_it(tmp_path):
    names = []
    for weight in (1.0, 2.0):
        content = tiny.reuse_params()
        features = {"type": "custom", "factory": "tests.measure_memory:features"}
        content["control"]["energies"] |= {"diversity": {"type": "diversity", "features": features}}
        for energy in content["control"]["energies"].values():
            energy["weight"] = weight
        run_pass = Pass(project_in(tmp_path, content), 1)
        names.append(energy_outputs(run_pass, run_pass.params.control))
    assert [name for name, output in names[0].items() if output != names[1][name]] == ["diversity"]
    assert len(names[0]) > 1


def test_a_record_says_what_was_spent(reused):
    for number, budget in ((1, 768), (2, 1024)):
        record = pass_record(Pass(reused, number))
        assert record.reuse.budget == budget
        assert 0 < record.reuse.units <= budget
        assert record.reuse.trusts(record.fit) in (True, False)
    assert pass_record(Pass(reused, 0)).reuse is None


def test_one_store_serves_all_passes(reused):
    assert len(list(reused.artifacts.glob("evaluations/*"))) == 1
    lists = {
        (number, step): read_json(Pass(reused, number).folder(step) / LIST_NAME)
        for number, step in ((1, "train_flow"), (2, "fit_moments"), (2, "train_flow"))
    }
    assert {f"{address}.safetensors" for addresses in lists.values() for address in addresses} == shards(reused)
    assert set(lists[1, "train_flow"]) < set(lists[2, "train_flow"])
    assert set(lists[2, "fit_moments"]) < set(lists[2, "train_flow"])
    assert len(lists[2, "train_flow"]) == len(set(lists[2, "train_flow"]))


def test_the_multipliers_are_fitted_on_what_the_fit_before_has_made(reused):
    made = fit_moments.run(Pass(reused, 2), NullTracker())["result"]["generator_evaluations"]
    assert made == {"forward": 512 - 256, "backward": 0}


@pytest.mark.usefixtures("few_steps")
def test_another_weight_of_the_energy_explores_nothing_again(reused, tmp_path, caplog):
    """The images and gradients of the prior are those of the energy without its weight."""
    content = tiny.reuse_params()
    content["debias"]["max_passes"] = 0
    train_flow.run(Pass(project_in(tmp_path, content), 1), NullTracker())
    content["control"]["energies"]["wish"]["weight"] = 1.5
    with caplog.at_level(logging.INFO, "promptgen"):
        train_flow.run(Pass(project_in(tmp_path, content), 1), NullTracker())
    (line,) = [record.message for record in caplog.records if record.message.endswith("evaluations reused")]
    assert int(line.split()[0]) > 50


@pytest.mark.usefixtures("few_steps")
def test_a_store_without_the_shards_of_an_earlier_pass_is_named(reused, tmp_path):
    project = project_in(tmp_path, tiny.reuse_params())
    for number in range(2):
        run_pass(project, number)
    fit_moments.run(Pass(project, 2), NullTracker())
    lost = read_json(Pass(project, 1).folder("train_flow") / LIST_NAME)[0]
    (path,) = project.artifacts.glob(f"evaluations/*/{lost}.safetensors")
    path.unlink()
    with pytest.raises(DataError, match=lost[:12]):
        train_flow.run(Pass(project, 2), NullTracker())
    (Pass(project, 1).folder("train_flow") / LIST_NAME).write_text("{}")
    with pytest.raises(DataError, match="not a list"):
        train_flow.run(Pass(project, 2), NullTracker())
