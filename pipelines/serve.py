"""The experiment on its schedule: `make serve`, or `promptgen serve`.

The schedule is that of params.yaml. Runs do not overlap. The schedule is paused when this process ends, so that no runs
are late when it starts again.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("serve")

import multiprocessing
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pipelines.servers import STOP_SECONDS, Server, end_on_sigterm, prefect_server, use_prefect
from promptgen.config.params import Params
from promptgen.errors import ConfigError
from steps import check
from steps.shared.common import Project

if TYPE_CHECKING:
    from prefect.schedules import Schedule

DEPLOYMENT = "scheduled"


def schedule_of(params: Params) -> Schedule:
    """Return the schedule of an experiment as Prefect's.

    Raises:
        ConfigError: it has no schedule, or one that Prefect does not accept.
    """
    from prefect.schedules import Cron

    schedule = params.schedule
    if schedule is None:
        raise ConfigError("schedule is null: give it cron (five fields) and timezone in params.yaml")
    try:
        return Cron(schedule.cron, timezone=schedule.timezone)
    except ValueError as error:  # Prefect does not know all words of cron
        message = f"Prefect does not accept schedule.cron, got {schedule.cron!r}: write numbers, such as '0 3 * * *'"
        raise ConfigError(message) from error


def serve(project: Project, params_path: str) -> None:
    """Run the experiment on its schedule until the process is ended."""
    from pipelines.debias import debias

    schedule = schedule_of(project.params)
    parameters = {"params_path": params_path}
    try:
        debias.serve(name=DEPLOYMENT, schedule=schedule, parameters=parameters, limit=1, pause_on_shutdown=True)
    finally:
        end_runs()


def end_runs() -> None:
    """End the current runs before their server ends; the next run continues them."""
    for run in multiprocessing.active_children():
        run.terminate()
        run.join(STOP_SECONDS)
        run.kill()


def start(stack: ExitStack, server: Server) -> None:
    """Run a Prefect server until the stack is closed, unless one is running already."""
    if not server.answers():
        print(f"starting Prefect at {server.url} ...", flush=True)
        stack.enter_context(server.running())
    use_prefect(server)


def run(params_path: str, prefect_port: int) -> None:
    """Serve the schedule until Ctrl-C."""
    project = Project.load(params_path)
    check.run(project)
    end_on_sigterm()
    with ExitStack() as stack:
        start(stack, prefect_server(prefect_port))
        serve(project, params_path)
