"""Prefect flows: the order of steps, and nothing else.

Prefect reads its settings when it is imported, so this package sets them first; what the environment sets already wins.
"""

import logging
import os
import time
from pathlib import Path
from urllib.parse import quote

STARTED = time.monotonic()
"""When the process began to load the pipelines, to tell the time of work from all other time."""

STEP_SECONDS: list[float] = []
"""Duration of each step of the run in this process."""

_SETTINGS = {
    # In the project, so that runs made without a server are there when one is started.
    "PREFECT_HOME": str(Path(__file__).resolve().parent.parent / ".prefect"),
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # A server on this machine answers at once; one that hangs would hold each step for a minute.
    "PREFECT_API_REQUEST_TIMEOUT": "15",
    "PREFECT_CLIENT_MAX_RETRIES": "2",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
}
_WITHOUT_SERVER = {
    # Ctrl-C also ends Prefect's temporary server; a client that goes on asking it would take a minute to give up.
    "PREFECT_CLIENT_MAX_RETRIES": "0",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}

for _name, _value in (_SETTINGS if "PREFECT_API_URL" in os.environ else _SETTINGS | _WITHOUT_SERVER).items():
    os.environ.setdefault(_name, _value)

# Prefect joins this from its home, but SQLAlchemy reads options behind a question mark.
if "?" in os.environ["PREFECT_HOME"]:
    _database = quote(os.path.join(os.environ["PREFECT_HOME"], "prefect.db"))
    os.environ.setdefault("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///file:{_database}?uri=true")

# Prefect formats the log, with times and tasks, only where nobody has: it replaces what a command of its own uses.
for _handler in [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]:
    logging.getLogger().removeHandler(_handler)
