"""Write the report of a run: reports/index.html, and tables and a picture for `dvc plots`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("report")

from collections.abc import Mapping, Sequence
from pathlib import Path

from promptgen.config.build import identities
from promptgen.config.params import Params
from promptgen.errors import DataError
from promptgen.files import atomic_write, read_json
from promptgen.labels import classes, knows, spelled_as
from promptgen.records import AttributeBias, Metrics
from promptgen.reporting import csv_tables as tables
from promptgen.reporting.drawing.pictures import png
from promptgen.reporting.page import render
from promptgen.reporting.run import PassMaterial, Run
from promptgen.reporting.settings import Settings
from steps.measuring.records import METRICS_NAME
from steps.measuring.samples import Samples
from steps.recording.replay import attach, runs_in_mlflow
from steps.shared.common import MOMENTS_NAME, Pass, Project
from steps.shared.manifest import StepFolder
from steps.train_flow import HISTORY_NAME

Readers = Mapping[str, Mapping[str, Sequence[str]]]
"""Labels of each attribute, by who reads it."""

PAGE_NAME = "index.html"
PLOTS_NAME = "plots"


def run(project: Project) -> Path:
    """Write the page and the plots of the last run, from reports/metrics.json and the files of its passes.

    Returns:
        The page.

    Raises:
        DataError: there was no run, it was of another experiment, or its files are gone.
        StorageError: reports/ cannot be written.
    """
    run = gather(project)
    plots = project.reports / PLOTS_NAME
    atomic_write(plots / "shares.csv", tables.share_table(run.metrics))
    atomic_write(plots / "bias.csv", tables.bias_table(run.metrics))
    atomic_write(plots / "quality.csv", tables.quality_table(run.metrics))
    atomic_write(plots / "watched.csv", tables.watched_table(run.metrics))
    atomic_write(plots / "training.csv", tables.training_table(run))
    atomic_write(plots / "grid.png", png(tables.grid(run)))
    atomic_write(project.reports / PAGE_NAME, render(run))
    return project.reports / PAGE_NAME


def gather(project: Project) -> Run:
    """Return all that the report shows.

    Raises:
        DataError: there was no run, it was of another experiment, or its files are gone.
    """
    path = project.reports / METRICS_NAME
    metrics = Metrics.parse(read_json(path), str(path))
    _check_same(metrics, project.params, path)
    material = [_material(Pass(project, record.number)) for record in metrics.passes]
    readers = Samples(Pass(project, metrics.passes[0].number).folder("sample")).labels
    return Run(
        metrics=_in_order(metrics, project.params, readers),
        material=material,
        settings=Settings.of(project.params),
        models=identities(project.params.specs, project.models),
        tracking=runs_in_mlflow(project),
    )


def _check_same(metrics: Metrics, params: Params, path: Path) -> None:
    """Refuse figures of another experiment: the page would show parameters that they do not come from."""
    recorded = (metrics.experiment, metrics.attribute, metrics.target)
    expected = (params.experiment, params.debias.attribute, spelled_as(list(metrics.target), params.debias.shares))
    for got, required in zip(recorded, expected, strict=True):
        if got != required:
            raise DataError(f"{path} describes {got!r}, expected {required!r}; run `dvc repro` to run the loop again")


def _in_order(metrics: Metrics, params: Params, readers: Readers) -> Metrics:
    """Return metrics in the order of the parameters, and of who reads the classes: a file on disk sorts its keys."""
    passes = []
    for record in metrics.passes:
        names = dict.fromkeys([*params.evaluation.watch, *record.watched])
        watched = {
            name: _classes_in_order(record.watched[name], name, readers) for name in names if name in record.watched
        }
        passes.append(record.model_copy(update={"watched": watched}))
    target = spelled_as(list(metrics.target), params.debias.shares)
    return metrics.model_copy(update={"target": target, "passes": passes})


def _classes_in_order(bias: AttributeBias, attribute: str, readers: Readers) -> AttributeBias:
    reader_labels = [labels for labels in readers.values() if knows(labels, attribute)]
    orders = [classes(labels, attribute) for labels in reader_labels]
    order = next((labels for labels in orders if set(labels) == set(bias.target)), bias.target)
    return bias.model_copy(update={"target": {label: bias.target[label] for label in order}})


def _material(run_pass: Pass) -> PassMaterial:
    pictures = Samples(run_pass.folder("sample")).pictures()
    trained = run_pass.folder("train_flow")
    params = run_pass.params  # multipliers that are only fitted are what the loop ends with
    is_last = params.only_fits and run_pass.number == params.last_measured_pass
    fitted = run_pass if run_pass.kind == "debias" else run_pass.after if is_last else None
    return PassMaterial(
        tiles=pictures["tiles"],
        sweep=pictures.get("sweep"),
        history=read_json(trained / HISTORY_NAME) if run_pass.kind != "generator" else [],
        moments=read_json(fitted.folder("fit_moments") / MOMENTS_NAME) if fitted else None,
        beta=StepFolder(trained, "").result().get("beta", {}) if run_pass.kind == "debias" else {},
    )


def run_and_attach(project: Project) -> None:
    """Write the report, print where it is, and attach it to the runs in MLflow."""
    page = run(project)
    print(page)
    attach(project, page)
