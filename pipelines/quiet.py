"""Filters that keep errors out of Prefect's log if this project reports them in one line."""

from __future__ import annotations

import logging
import queue
from contextlib import suppress

import httpx

from pipelines.connection import is_temporary
from promptgen.errors import PromptGenError

RUNS = ("prefect.flow_runs", "prefect.task_runs")
TALK = ("prefect.events.clients", "prefect._internal.concurrency", "EventsWorker", "APILogWorker")
"""Loggers of the threads that talk to the server, which report a lost server for every event."""


def quiet_errors() -> None:
    """Filter errors that are reported in one line elsewhere."""
    for name in RUNS:
        logging.getLogger(name).addFilter(_is_news)
    for name in TALK:
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.CRITICAL)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, httpx.HTTPError):
        return False
    if isinstance(error, PromptGenError):
        record.exc_info = None
    return not (is_temporary() and record.getMessage().startswith("View at"))  # a page that ends with the run


def forget_events() -> None:
    """Drop the events that wait for a lost server: at the end of the process, each of them would take seconds."""
    with suppress(ImportError, AttributeError):  # Prefect has no public way to do this
        from prefect._internal.concurrency.services import _QueueServiceBase

        for service in list(_QueueServiceBase._instances.values()):
            with suppress(queue.Empty):
                while True:
                    service._queue.get_nowait()
                    service._queue.task_done()
