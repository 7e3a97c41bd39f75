"""A small loop as a recording sees it, and the runs that it leaves."""

from __future__ import annotations

from promptgen.records import PassRecord
from steps.recording.mlflow_store import connect
from steps.recording.recorder import Recorder

LOOP = "0123456789abcdef0123"


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
