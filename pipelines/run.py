"""A run of the loop, with Prefect as long as its server answers."""

from __future__ import annotations

import logging
import time

import pipelines
from pipelines.connection import Connection, connected
from pipelines.servers import end_on_sigterm
from promptgen.errors import PromptGenError
from steps import check
from steps.measuring.records import write_timing
from steps.shared.common import Project

logger = logging.getLogger("promptgen")


def run(params_path: str, experiment: str | None) -> None:
    """Check the experiment, run the loop, and record how long it took.

    Raises:
        PromptGenError: the experiment has a mistake, or a step fails.
    """
    project = Project.load(params_path, experiment)
    check.run(project)  # before Prefect starts, which takes seconds
    end_on_sigterm()
    with connected() as connection:
        _run_loop(params_path, experiment, connection)
    write_timing(project, time.monotonic() - pipelines.STARTED, sum(pipelines.STEP_SECONDS))


def _run_loop(params_path: str, experiment: str | None, connection: Connection) -> None:
    """Run the flow `pipelines.debias.debias`; if Prefect's server is lost, run it again without Prefect.

    Finished steps are on disk, so the second attempt does only the rest.
    """
    from pipelines.debias import debias
    from pipelines.quiet import forget_events, quiet_errors

    quiet_errors()
    if connection.url is not None:
        try:
            debias(params_path, experiment)
            return
        except PromptGenError:
            raise
        except Exception as error:
            _raise_interruption(error)
            if not connection.is_lost(error):
                raise
            logger.warning("%s", connection.loss)
            forget_events()
    debias.fn(params_path, experiment)


def _raise_interruption(error: Exception) -> None:
    """Raise KeyboardInterrupt if Ctrl-C caused an error of Prefect, since it also ends the temporary server."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        behind = behind.__context__
