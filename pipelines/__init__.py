"""Prefect flows: the order of steps, and nothing else.

Prefect reads its settings when it is imported, so this package sets them first. The environment has priority.
"""

import logging
import os
import time
from pathlib import Path
from urllib.parse import quote

STARTED = time.monotonic()
"""When the process began to load the pipelines, to separate the time of the steps from all other time."""

STEP_SECONDS: list[float] = []
"""Duration of each step of the run in this process."""

_SETTINGS = {
    # In the project, so that a server started later shows the runs made without one.
    "PREFECT_HOME": str(Path(__file__).resolve().parent.parent / ".prefect"),
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # A server on this machine answers at once; one that hangs would hold each step for a minute.
    "PREFECT_API_REQUEST_TIMEOUT": "15",
    "PREFECT_CLIENT_MAX_RETRIES": "2",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
}
_WITHOUT_SERVER = {
    # Ctrl-C also ends Prefect's temporary server; a client that keeps asking it would take a minute to give up.
    "PREFECT_CLIENT_MAX_RETRIES": "0",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}

for _name, _value in (_SETTINGS if "PREFECT_API_URL" in os.environ else _SETTINGS | _WITHOUT_SERVER).items():
    os.environ.setdefault(_name, _value)

# Prefect derives this from its home without quoting; SQLAlchemy reads what follows a question mark as options.
if "?" in os.environ["PREFECT_HOME"]:
    _database = quote(os.path.join(os.environ["PREFECT_HOME"], "prefect.db"))
    os.environ.setdefault("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///file:{_database}?uri=true")

# Prefect formats the log, with times and tasks, only if there is no handler: remove that of the command line.
for _handler in [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]:
    logging.getLogger().removeHandler(_handler)
