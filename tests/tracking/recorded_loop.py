"""A small loop as a recording sees it, and the runs that it leaves."""

from __future__ import annotations

from steps.recording.mlflow_store import connect
from steps.recording.recorder import Recorder

LOOP = "0123456789abcdef0123"


def interval(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def record(number, kl):
    return {
        "pass": number,
        "kind": "control",
        "n": 10,
        "shares": {"judge": {"short": interval(0.4), "long": interval(0.6)}},
        "kl": {"classifier": interval(kl + 1), "judge": interval(kl)},
        "control": {"makeup.without.judge": interval(0.9), "identity.diversity": interval(0.5)},
        "fit": {
            "ess_fraction": {"value": 0.3, "low": 0.2, "high": 0.4},
            "tail_index": None,
            "trust": "good",
            "n": 64,
        }
        if number
        else None,
        "seconds": {"sample": 1.5},
        "generator_evaluations": {"forward": 10, "backward": 0},
    }


def run_loop(root, *, until=2, interval=60.0, patience=15.0, registered_model=None):
    """Record a small loop; `until` passes are finished, as if the loop had then been killed or had ended."""
    report = root / "reports" / "metrics.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text("{}")
    with Recorder(
        root,
        "tiny",
        LOOP,
        tracking_experiment="tests",
        registered_model=registered_model,
        interval=interval,
        patience=patience,
    ) as recorder:
        recorder.start({"seed": 1, "debias": {"target": {"short": 0.5}}}, {"prefect.flow_run": "abc"})
        for number in range(until):
            with recorder.run_pass(number, "control" if number else "generator") as tracker:
                if number:
                    for step in range(3):
                        tracker.metrics({"loss": 1.0 / (step + 1)}, step)
                    tracker.progress(3, 3)
                tracker.artifact(report)
                tracker.record(record(number, 1.0 / (number + 1)))
        recorder.finish("maximum of passes reached", [report])
    return recorder.folder


def runs_of(root):
    """Return the runs of the experiment "tests" by title."""
    client = connect(root)
    experiment = client.get_experiment_by_name("tests")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
