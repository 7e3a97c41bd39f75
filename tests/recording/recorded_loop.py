"""A small loop as a recording sees it, and the runs that it leaves."""

from __future__ import annotations

import json

from promptgen.config.params import Params
from promptgen.records import PassRecord
from steps.recording.events import Metrics
from steps.recording.journal import Journal
from steps.recording.mlflow_store import connect
from steps.recording.replay import published
from steps.shared.common import Project
from tests import tiny


def interval(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def reader(kl):
    return {
        "counts": {"short": 4, "long": 6},
        "shares": {"short": interval(0.4), "long": interval(0.6)},
        "kl": interval(kl),
        "total_variation": interval(0.1),
        "discrepancy": interval(0.14),
    }


def record(number, kl):
    """Return the record of a pass whose KL by the judge is `kl`."""
    fit = {name: interval(0.3) for name in ("ess_fraction", "log_z", "kl_gap")}
    content = {
        "pass": number,
        "kind": "control",
        "n": 10,
        "target": {"short": 0.5, "long": 0.5},
        "chance": {"kl": 0.05},
        "by": {"classifier": reader(kl + 1), "judge": reader(kl)},
        "watched": {},
        "quality": None,
        "control": {"makeup.without.judge": interval(0.9), "identity.diversity": interval(0.5)},
        "changes": [],
        "fit": {**fit, "tail_index": None, "trust": "good", "n": 64} if number else None,
        "seconds": {"sample": 1.5},
        "generator_evaluations": {"forward": 10, "backward": 0},
    }
    return PassRecord.model_validate(content)


def project_of(root, registered_model=None, name="tiny"):
    """Return the tiny project, which records in the MLflow experiment "tests"."""
    tracking = {"experiment": "tests", "registered_model": registered_model}
    return Project(root, Params.model_validate(tiny.params() | {"experiment": name, "tracking": tracking}))


def run_loop(root, *, until=2, interval=60.0, patience=15.0):
    """Record a small loop of `until` passes, and return the folder of its journal."""
    report = root / "reports" / "metrics.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text("{}")
    journal = Journal(project_of(root))
    with (
        published(journal.path.parent, root, interval=interval, patience=patience),
        journal.run_loop({"prefect.flow_run": "abc"}),
    ):
        for number in range(until):
            with journal.run_pass(number, "control" if number else "generator") as run:
                if number:
                    for step in range(3):
                        journal.write(Metrics(run=run, values={"train/loss": 1.0 / (step + 1)}, step=step))
                journal.artifact(run, report)
                journal.record(record(number, 1.0 / (number + 1)))
        journal.finish("maximum of passes reached", report)
    return journal.path.parent


def events_of(path):
    """Return the whole lines of a journal."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def runs_of(root):
    """Return the runs of the experiment "tests" by title."""
    client = connect(root)
    experiment = client.get_experiment_by_name("tests")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def history_of(root, title, metric):
    """Return the steps and values of a metric of the run called `title`."""
    history = connect(root).get_metric_history(runs_of(root)[title].info.run_id, metric)
    return [(point.step, point.value) for point in history]
