"""Where runs are recorded and when they start: the `tracking` and `schedule` sections of params.yaml."""

from __future__ import annotations

import difflib
from datetime import datetime
from posixpath import normpath
from typing import Annotated
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field

from promptgen.strict import Section

FIELDS = 5
"""Fields of a cron expression: minute, hour, day of the month, month, day of the week."""


def _is_shown_whole(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError("should have no control characters, and no space at its ends")
    return name


def _is_no_path(name: str) -> str:
    if {"/", ":"} & set(name) or normpath(name) != name or name in (".", ".."):
        raise ValueError("should not be a path, and have no `/` and no `:`")
    return name


def _comes(cron: str) -> str:
    try:
        if len(cron.split()) != FIELDS:
            raise CronSimError
        next(CronSim(cron, datetime(2000, 1, 1)))
    except (CronSimError, ValueError, StopIteration) as error:
        raise ValueError("should be the five fields of cron, for a time that occurs, such as '0 3 * * *'") from error
    return cron


def _is_zone(name: str) -> str:
    zones = available_timezones()  # without copies of zones, such as posix/UTC, which `ZoneInfo` reads
    if name not in zones:
        similar = difflib.get_close_matches(name, zones) or ["UTC", "Europe/Berlin"]
        raise ValueError(f"should be a time zone, such as {' or '.join(similar)}")
    return name


TrackedName = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_is_shown_whole)]
"""A name that MLflow takes for an experiment."""

ModelName = Annotated[
    str, Field(min_length=1, max_length=250), AfterValidator(_is_shown_whole), AfterValidator(_is_no_path)
]
"""A name that MLflow takes for a registered model."""


class Tracking(Section):
    """Where MLflow records the runs.

    Attributes:
        experiment: name of the MLflow experiment.
        registered_model: name under which MLflow registers the trained generator; null registers nothing.
    """

    experiment: TrackedName
    registered_model: ModelName | None


class Schedule(Section):
    """When the experiment runs by itself.

    Attributes:
        cron: five fields, as in a crontab.
        timezone: name of the time zone, such as Europe/Berlin.
    """

    cron: Annotated[str, AfterValidator(_comes)]
    timezone: Annotated[str, AfterValidator(_is_zone)]
