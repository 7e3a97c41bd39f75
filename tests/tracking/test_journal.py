"""The journal of a loop: whole lines, and each fact once."""

from __future__ import annotations

from steps.recording.journal import Journal, read
from steps.recording.recorder import Recorder
from tests.tracking.recorded_loop import LOOP, runs_of


def test_half_a_line_left_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path).write({"kind": "status", "run": "loop", "status": "RUNNING"})
    with path.open("a") as file:
        file.write('{"kind": "sta')
    assert len(list(read(path))) == 1
    Journal(path).write({"kind": "status", "run": "loop", "status": "FINISHED"})
    assert [event["status"] for event, _ in read(path)] == ["RUNNING", "FINISHED"]


def test_a_known_fact_is_not_written_again_but_a_changed_status_is(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    fact = {"kind": "metrics", "run": "loop", "step": 1, "values": {"a": 1.0}}
    statuses = [{"kind": "status", "run": "loop", "status": name} for name in ("RUNNING", "FAILED", "RUNNING")]
    assert [journal.write(event) for event in (fact, fact, *statuses, statuses[-1])] == [
        True,
        False,
        True,
        True,
        True,
        False,
    ]
    assert not Journal(journal.path).write(fact)


def test_infinite_and_missing_numbers_survive(root):
    with Recorder(root, "tiny", LOOP, tracking_experiment="tests") as recorder:
        recorder.start({}, {})
        with recorder.run_pass(1, "control") as tracker:
            tracker.metrics({"up": float("inf"), "none": float("nan")}, 0)
    metrics = runs_of(root)["1 control"].data.metrics
    assert metrics["train/up"] > 1e308
    assert metrics["train/none"] != metrics["train/none"]
