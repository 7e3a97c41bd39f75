"""Prefect artifacts of a run: the sample grid of each pass, and at the end the answer and a table."""

from __future__ import annotations

import base64
import logging
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.context import FlowRunContext

from promptgen.files import read_json
from promptgen.labels import spelled_as
from promptgen.records import Confirmation, Count, Metrics
from promptgen.reporting.sections.answer import answer
from promptgen.reporting.settings import Settings
from promptgen.reporting.text.formats import duration, number_range, percent, percent_range
from steps.sample import GRID_NAME
from steps.shared.common import Pass, Project

logger = logging.getLogger("promptgen")


PAUSE = 60.0
"""Seconds without artifacts after one has failed, since each can take as long as the timeout of the client."""

_failed = -math.inf


def in_flow_run() -> bool:
    """Return whether Prefect runs the loop."""
    return FlowRunContext.get() is not None


def show(create: Callable[[], object]) -> object:
    """Return what creating an artifact in Prefect returns; None without Prefect."""
    global _failed
    if not in_flow_run() or time.monotonic() - _failed < PAUSE:
        return None
    try:
        return create()
    except (httpx.HTTPError, RuntimeError) as error:
        _failed = time.monotonic()
        logger.debug("Prefect did not take an artifact: %s", error)
        return None


def show_grid(run_pass: Pass) -> None:
    """Show the sample grid of a pass as an image artifact that holds the picture itself."""
    picture = base64.b64encode((run_pass.folder("sample") / GRID_NAME).read_bytes()).decode()
    key = artifact_key(run_pass.params.experiment, "grid")
    description = f"Samples of pass {run_pass.number}, {run_pass.kind}: the same noise in every pass"
    show(lambda: create_image_artifact(f"data:image/png;base64,{picture}", key=key, description=description))


def show_summary(project: Project, metrics_path: Path) -> None:
    """Show the outcome of a run as a markdown artifact, and the confirming count in the log."""
    metrics = Metrics.parse(read_json(metrics_path), str(metrics_path))
    target = spelled_as(list(metrics.target), project.params.debias.shares)  # in the order of params.yaml
    metrics = metrics.model_copy(update={"target": target})
    text, key = summary(project, metrics), artifact_key(project.params.experiment, "summary")
    show(lambda: create_markdown_artifact(text, key=key))
    if metrics.confirmation:
        logger.info("%s", confirmation_line(metrics, metrics.confirmation))


def summary(project: Project, metrics: Metrics) -> str:
    """Return the outcome of a run in markdown: the answer, and each pass's shares by the judge."""
    outcome = answer(metrics, Settings.of(project.params))
    labels = list(metrics.target)
    head = ["pass", "kind", *(f"{metrics.attribute} {label}" for label in labels), "KL (nats)", "time"]
    rows = [
        [str(record.number), record.kind, *_figures(record, labels), duration(sum(record.seconds.values()))]
        for record in metrics.passes
    ]
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = f"{outcome}\n\nStopped: {metrics.stopped}. Shares and KL as the judge counts them.\n\n{table}\n"
    return f"{text}\n{confirmation_line(metrics, metrics.confirmation)}.\n" if metrics.confirmation else text


def confirmation_line(metrics: Metrics, confirmation: Confirmation) -> str:
    """Return the confirming count of the last pass, by the judge, in one line."""
    *shares, kl = _figures(confirmation, list(metrics.target))
    figures = ", ".join(
        f"{metrics.attribute} {label} {share}" for label, share in zip(metrics.target, shares, strict=True)
    )
    whether = "on target" if confirmation.contains_target else "off target"
    count = f"pass {confirmation.number} counted again on {confirmation.n} fresh samples: {figures}"
    return f"{count}, KL {kl} nats; {whether}"


def artifact_key(*words: str) -> str:
    """Return `words` as a key of Prefect: lower-case letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def _figures(count: Count, labels: list[str]) -> list[str]:
    """Return the judge's shares of the labels, and the KL to the target."""
    shares, kl = [count.trusted.shares[label] for label in labels], count.trusted.kl
    return [
        *(f"{percent(share.value)} ({percent_range(share.low, share.high)})" for share in shares),
        number_range(kl.low, kl.high),
    ]
