"""The loop with a Prefect server: what a run leaves, how it ends, and that a killed one ends with the same numbers."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from promptgen.flows.training import STATE_NAME
from promptgen.records import Metrics
from tests import tiny
from tests.loop.runs import STATE, ask, confirmation_in, error_of, fork, metrics_without_seconds, one_pass, two_passes
from tests.steps.test_arguments import write_presets

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]


def rows(folder, query, *values):
    """Return what MLflow's database answers."""
    with closing(sqlite3.connect(folder / "mlruns/mlflow.db")) as database:
        return database.execute(query, values).fetchall()


def test_the_loop_runs_to_its_target(finished):
    folder, output = finished
    content = json.loads((folder / "reports/metrics.json").read_text())
    metrics = Metrics.parse(content, "metrics.json")
    assert [record.kind for record in metrics.passes][:3] == ["generator", "control", "debias"]
    assert metrics.stopped == "interval contains the target"
    assert f"stopped after pass {len(metrics.passes) - 1}: {metrics.stopped}" in output
    assert "s in steps" in output
    timing = json.loads((folder / "artifacts/tiny/timing.json").read_text())
    assert 0 < timing["steps"] < timing["total"]


def test_evaluations_are_kept_and_used_again(finished):
    folder, output = finished
    metrics = Metrics.parse(json.loads((folder / "reports/metrics.json").read_text()), "metrics.json")
    # The final fit of the control made half of the multipliers' samples.
    assert "256 of 512 evaluations reused" in output
    for record in metrics.passes[1:]:
        assert 0 < record.reuse.units <= record.reuse.budget
        assert record.reuse.used > record.reuse.units // 3
    assert "evaluations" in fork(folder, command="store").end()


def test_the_last_pass_is_counted_once_more(finished):
    folder, output = finished
    metrics = Metrics.parse(json.loads((folder / "reports/metrics.json").read_text()), "metrics.json")
    last, found = metrics.passes[-1], metrics.confirmation
    assert (found.number, found.n) == (last.number, last.n)
    assert f"pass {last.number} counted again on {found.n} fresh samples: hair short " in output
    assert [record.number for record in metrics.passes if "confirm" in record.seconds] == [last.number]
    assert json.loads((folder / "reports/summary.json").read_text())["confirmed"]["shares"].keys() == {"short", "long"}


def test_prefect_shows_the_run(finished, server):
    folder, _ = finished
    (number,) = rows(folder, "select distinct value from tags where key = 'prefect.flow_run.id'")
    (run,) = [run for run in ask(server, "flow_runs") if [run["id"]] == list(number)]
    assert (run["name"], run["state_type"]) == ("tiny", "COMPLETED")
    tasks = {each["name"] for each in ask(server, "task_runs") if each["flow_run_id"] == run["id"]}
    assert {"sample 0", "train-flow 1", "fit-moments 2", "train-flow 2", "estimate-bias 2"} <= tasks
    artifacts = {each["key"]: each for each in ask(server, "artifacts") if each["flow_run_id"] == run["id"]}
    assert artifacts["tiny-grid"]["data"].startswith("data:image/png;base64,")
    assert "| pass | kind | hair short | hair long |" in artifacts["tiny-summary"]["data"]
    assert "counted again on 512 fresh samples" in artifacts["tiny-summary"]["data"]
    assert f"confirm {confirmation_in(folder)['pass']}" in tasks
    assert any(artifact["type"] == "progress" and artifact["data"] == 100 for artifact in artifacts.values())


def test_mlflow_has_a_run_per_pass(finished):
    folder, _ = finished
    names = {name for (name,) in rows(folder, "select name from runs where status = 'FINISHED'")}
    assert {"tiny", "0 generator", "1 control", "2 debias"} <= names


def test_mlflow_has_the_confirming_count_by_the_loop_and_by_its_pass(finished):
    folder, _ = finished
    confirmation = confirmation_in(folder)
    query = "select name, value from runs join latest_metrics using (run_uuid) where key = ?"
    for reader in ("classifier", "judge", "truth"):
        told = dict(rows(folder, query, f"confirmed/share/long/{reader}/value"))
        value = confirmation["by"][reader]["shares"]["long"]["value"]
        assert told == {"tiny": value, f"{confirmation['pass']} debias": value}


def test_a_second_run_does_nothing_again(finished, server):
    folder, _ = finished
    content = (folder / "reports/metrics.json").read_bytes()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("artifacts/tiny/pass-*/*/*")}
    fork(folder).end()
    assert (folder / "reports/metrics.json").read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.long
def test_it_is_counted_also_where_passes_run_out(server, project_folder):
    content = tiny.params()
    content["debias"]["max_passes"] = 1
    content["evaluation"]["confidence"] = 0.001  # no interval is wide enough to contain anything
    tiny.write_params(project_folder, content)
    output = fork(project_folder).end()
    assert "stopped after pass 2: maximum of passes reached" in output
    assert "pass 2 counted again on 512 fresh samples" in output
    summary = json.loads((project_folder / "reports/summary.json").read_text())
    assert summary["confirmed"]["contains_target"] is False


@pytest.mark.long
def test_the_loop_ends_with_the_multipliers_where_no_flow_is_wanted(server, project_folder):
    content = tiny.params()
    content["control"] = content["debias"]["training"] = None
    tiny.write_params(project_folder, content)
    output = fork(project_folder).end()
    assert "stopped after pass 0: only fitting the multipliers was asked for" in output
    assert sorted(path.name for path in (project_folder / "artifacts/tiny/pass-1").iterdir()) == ["fit_moments"]
    assert confirmation_in(project_folder) is None
    fork(project_folder, command="report").end()
    page = (project_folder / "reports/index.html").read_text()
    assert "multipliers that would correct it were fitted, but no flow was trained with them" in page
    assert "Multipliers of de-biasing" in page


def test_the_loop_ends_with_the_control_where_only_measuring_is_wanted(measured):
    folder, output = measured
    assert "stopped after pass 1: only measuring was asked for" in output
    assert confirmation_in(folder) is None
    assert not list(folder.glob("artifacts/tiny/pass-*/confirm"))
    fork(folder, command="report").end()
    assert "de-biasing was not requested" in (folder / "reports/index.html").read_text()


def test_a_ready_made_experiment_runs_by_name(server, project_folder):
    write_presets(project_folder, one_pass())
    output = fork(project_folder, "--experiment", "mine").end()
    assert "Flow run 'mine'" in output
    assert json.loads((project_folder / "reports/metrics.json").read_text())["experiment"] == "mine"


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("debias", "max_passes", -1, "debias.max_passes: should be greater than or equal to 0, got -1"),
        ("debias", "atribute", "hair", "debias.atribute is unknown; did you mean attribute?"),
        ("debias", "judge", "world-judge", "world-judge.safetensors is missing; fetch it with"),
    ],
)
def test_bad_input_is_one_line_before_anything_starts(server, project_folder, section, key, value, message):
    content = tiny.params()
    content[section][key] = value
    tiny.write_params(project_folder, content)
    output = fork(project_folder).end(2)
    assert output.count("\n") == 1
    assert output.startswith("error: ")
    assert message in output
    assert not (project_folder / "reports/metrics.json").exists()
    assert not list(project_folder.rglob("manifest.json"))


def test_an_error_in_a_step_ends_the_run_with_one_line(server, project_folder):
    content = tiny.params()
    content["control"] = None
    content["debias"]["classifier"]["factory"] = "tests.tiny:short_only"
    tiny.write_params(project_folder, content)
    assert "cannot be reached, observed share" in error_of(fork(project_folder).end(2))
    assert not (project_folder / "reports/metrics.json").exists()


@pytest.mark.faults
def test_a_killed_run_ends_with_the_same_numbers(measured, project_folder):
    """SIGKILL in the middle of a training, then the same command: what was done stays, and nothing else differs."""
    tiny.write_params(project_folder, two_passes())
    run = fork(project_folder, hold=STATE / STATE_NAME)
    run.wait_for(STATE / STATE_NAME)
    run.signal(signal.SIGKILL)
    run.wait()
    assert not (project_folder / "artifacts/tiny/pass-1/train_flow/manifest.json").exists()
    before = {path: path.stat().st_mtime_ns for path in project_folder.glob("artifacts/tiny/pass-0/*/manifest.json")}
    assert len(before) == 3
    fork(project_folder).end()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert metrics_without_seconds(project_folder) == metrics_without_seconds(measured[0])


@pytest.mark.long
@pytest.mark.faults
def test_a_run_that_is_killed_while_it_evaluates_ends_with_the_same_numbers(finished, project_folder):
    """SIGKILL once the first shard is written; it is not made again."""
    shards = finished[0].glob("artifacts/tiny/evaluations/*/*.safetensors")
    first = min(shards, key=lambda path: path.stat().st_mtime_ns).relative_to(finished[0])
    tiny.write_params(project_folder, tiny.reuse_params())
    run = fork(project_folder, hold=first)
    run.wait_for(first)
    run.signal(signal.SIGKILL)
    run.wait()
    written = (project_folder / first).stat().st_mtime_ns
    fork(project_folder).end()
    assert (project_folder / first).stat().st_mtime_ns == written
    assert metrics_without_seconds(project_folder) == metrics_without_seconds(finished[0])


@pytest.mark.faults
def test_one_folder_has_one_run_and_ctrl_c_is_quick(server, project_folder):
    tiny.write_params(project_folder)
    first = fork(project_folder, hold=STATE)
    first.wait_for(STATE)
    error = error_of(fork(project_folder).end(2))
    assert "artifacts/tiny is held by another run: wait for it to end, or stop it" in error
    asked = time.monotonic()
    first.signal(signal.SIGINT)
    assert "interrupted; run the same command again" in first.end(130)
    assert time.monotonic() - asked < 60
