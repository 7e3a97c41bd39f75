"""The Prefect server of a run: the one that PREFECT_API_URL names, or a temporary one that ends with the run.

Prefect reads its address when it is imported, so a run connects first. If no server answers, the run continues without
Prefect: its work, its figures and their copy in MLflow do not need it.
"""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from pipelines.servers import free_port, temporary_prefect
from promptgen.errors import PromptGenError
from promptgen.files import storage_error

logger = logging.getLogger("promptgen")

ADDRESS = "PREFECT_API_URL"
TEMPORARY = "PROMPTGEN_TEMPORARY_PREFECT"
"""Environment variables: of Prefect, its server's address; and of a run, set where that server ends with it."""

LOG_NAME, LOCK_NAME, DATABASE_NAME = "server.log", "start.lock", "prefect.db"
WITHOUT = "the run continues without Prefect, which will not show it"


@dataclass(frozen=True)
class Connection:
    """The connection of a run to Prefect.

    Attributes:
        url: address of the API; None without a server.
    """

    url: str | None

    @property
    def loss(self) -> str:
        """Warning for the loss of the server."""
        return f"Prefect's server at {self.url} is gone: {WITHOUT}"

    def is_lost(self, error: Exception) -> bool:
        """Return whether the server caused an error: it answered with one, or it no longer answers."""
        return type(error).__module__.partition(".")[0] in ("httpx", "httpcore") or not _answers(self.url)


@contextmanager
def connected() -> Iterator[Connection]:
    """Connect this process to a Prefect server for the length of a block; log one line if there is none."""
    with ExitStack() as stack:
        url = os.environ.get(ADDRESS)
        if url is None:
            url = _started(stack)
        elif not _answers(url):
            logger.warning("Prefect's server at %s does not answer: %s", url, WITHOUT)
            url = None
        if url is not None:
            os.environ[ADDRESS] = url
        yield Connection(url)


def is_temporary() -> bool:
    """Return whether the server ends with the run, so that its addresses lead nowhere afterwards."""
    return TEMPORARY in os.environ


def _started(stack: ExitStack) -> str | None:
    """Start a temporary server until the stack is closed, and return its address; None, with a warning, if it fails."""
    home = Path(os.environ["PREFECT_HOME"])
    log, server = home / LOG_NAME, temporary_prefect(free_port())
    try:
        home.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(home / LOCK_NAME):  # two that make the tables of one database at once would both fail
            stack.enter_context(server.running(log))
    except OSError as error:
        logger.warning("%s; %s", storage_error(home, error), WITHOUT)
        return None
    except PromptGenError as error:
        remedy = f"see {log}; if it is the database, of another version or damaged, move {home / DATABASE_NAME} away"
        logger.warning("%s; %s: %s", error, remedy, WITHOUT)
        return None
    os.environ[TEMPORARY] = "true"
    return f"{server.url}/api"


def _answers(url: str | None) -> bool:
    """Return whether anything answers at the address of an API, even if it refuses."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
