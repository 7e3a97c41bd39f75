"""How a command of this project ends: with one line on stderr when something is wrong, never with a traceback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from promptgen.errors import PromptGenError


def command(main: Callable[[], object]) -> None:
    """Run a command's `main`; an error of this project ends it with one line on stderr and status 2."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("promptgen").setLevel(logging.INFO)
    try:
        main()
    except PromptGenError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
