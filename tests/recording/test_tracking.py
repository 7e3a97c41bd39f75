"""Recording a loop: its runs, tags and metrics in a real MLflow database, and what is written beside them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from promptgen.files import sha256_of
from steps.recording.facts import figures, flatten, provenance
from steps.recording.journal import Journal
from steps.recording.mlflow_store import ROOT, connect, tracking_uri
from steps.recording.replay import attach, published
from tests.recording.recorded_loop import events_of, history_of, project_of, record, run_loop, runs_of


def test_a_loop_is_one_parent_and_a_child_per_pass(root):
    run_loop(root)
    runs = runs_of(root)
    assert sorted(runs) == ["0 generator", "1 control", "tiny"]
    parent, child = runs["tiny"], runs["1 control"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert parent.data.params.items() >= {"seed": "1", "debias.target.short": "0.5"}.items()
    assert child.data.params == {"pass": "1", "kind": "control"}
    assert parent.data.tags["prefect.flow_run"] == "abc"
    assert parent.data.tags["promptgen.stopped"] == "maximum of passes reached"
    assert child.data.metrics["fit/ess_fraction/value"] == 0.3
    assert child.data.metrics["fit/ess_fraction/high"] == 0.4
    assert not {"fit/tail_index", "fit/trust"} & child.data.metrics.keys()
    assert child.data.metrics["train/loss"] == pytest.approx(1 / 3)
    assert child.data.metrics["control/makeup.without.judge/low"] == pytest.approx(0.8)
    assert child.data.metrics["quality/identity.diversity/high"] == pytest.approx(0.6)
    assert [item.path for item in connect(root).list_artifacts(parent.info.run_id)] == ["metrics.json"]


def test_the_headline_comes_first_and_the_parent_has_it_by_pass(root):
    run_loop(root)
    runs = runs_of(root)
    assert next(iter(runs["1 control"].data.metrics)) == "bias/kl/judge/value"
    assert next(iter(runs["tiny"].data.metrics)) == "bias/kl/judge/value"
    assert history_of(root, "tiny", "bias/kl/judge/value") == [(0, 1.0), (1, 0.5)]
    assert history_of(root, "1 control", "bias/kl/judge/value") == [(0, 1.0), (1, 0.5)]


def test_a_restarted_loop_continues_the_same_runs(root):
    run_loop(root, until=1)
    run_loop(root, until=3)
    runs = connect(root).search_runs([connect(root).get_experiment_by_name("tests").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["0 generator", "1 control", "2 control", "tiny"]
    assert [step for step, _ in history_of(root, "tiny", "bias/kl/judge/value")] == [0, 1, 2]


def test_a_failing_pass_is_recorded_as_failed(root):
    journal = Journal(project_of(root))

    def fail():
        with published(journal.path.parent, root), journal.run_loop({}), journal.run_pass(0, "generator"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {run.info.status for run in runs_of(root).values()} == {"FAILED"}


def test_the_times_are_those_of_the_journal(root):
    folder = run_loop(root, interval=60.0)
    loss = [event for event in events_of(folder / "journal.jsonl") if "train/loss" in event.get("values", {})]
    history = connect(root).get_metric_history(runs_of(root)["1 control"].info.run_id, "train/loss")
    assert [point.timestamp for point in history] == [event["time"] for event in loss]


def test_the_report_is_attached_to_the_loop_that_ended(root):
    run_loop(root)
    page = root / "reports" / "index.html"
    page.write_text("<p>done</p>")
    attach(project_of(root), page)
    artifacts = connect(root).list_artifacts(runs_of(root)["tiny"].info.run_id, "report")
    assert [item.path for item in artifacts] == ["report/index.html"]


def test_a_moved_checkout_finds_its_artifacts(root):
    run_loop(root)
    moved = root.with_name(root.name + "_moved")
    shutil.move(root, moved)
    parent = runs_of(moved)["tiny"]
    assert parent.info.artifact_uri.startswith(moved.as_uri())
    assert [item.path for item in connect(moved).list_artifacts(parent.info.run_id)] == ["metrics.json"]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_two_processes_may_make_the_database_at_once(bare_root):
    code = (  # enough patience, so that a busy machine changes nothing
        "import sys; from pathlib import Path; from steps.recording.journal import Journal\n"
        "from steps.recording.replay import published; from tests.recording.recorded_loop import project_of\n"
        "project = project_of(Path(sys.argv[1]), None, sys.argv[2]); journal = Journal(project)\n"
        "with published(journal.path.parent, project.root, patience=200), journal.run_loop({}): pass\n"
    )
    command = [sys.executable, "-c", code, str(bare_root)]
    with (
        subprocess.Popen([*command, "one"], cwd=ROOT) as one,
        subprocess.Popen([*command, "two"], cwd=ROOT) as two,
    ):
        assert [one.wait(), two.wait()] == [0, 0]
    assert sorted(runs_of(bare_root)) == ["one", "two"]


def test_the_environment_can_name_another_store(root, monkeypatch):
    assert tracking_uri(root) == f"sqlite:///{root}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5001")
    assert tracking_uri(root) == "http://127.0.0.1:5001"
    assert isinstance(ROOT, Path)


def test_facts_are_flat():
    assert flatten({"a": {"b": 1, "c": ["x", 2]}, "d": None, "e": {}}) == {
        "a.b": "1",
        "a.c": '["x", 2]',
        "d": "null",
        "e": "{}",
    }
    names = list(figures(record(1, 0.5)))
    assert names[0] == "bias/kl/judge/value"
    assert {"bias/kl/judge/low", "bias/kl/judge/high"} < set(names)
    assert len(names) == len(set(names))
    assert "fit/n" not in figures(record(0, 0.5))


def test_provenance_names_the_commit_and_the_lock(tmp_path):
    assert provenance(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text("x")
    assert provenance(tmp_path) == {"dvc.lock.sha256": sha256_of(tmp_path / "dvc.lock")}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    tags = provenance(tmp_path)
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["git.changed"] == "false"
