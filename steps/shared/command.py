"""How a command of this project ends: with one line on stderr when something is wrong, never with a traceback."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable

from promptgen.errors import PromptGenError


def command(main: Callable[[], object]) -> None:
    """Run a command's `main`; an error of this project ends it with one line on stderr and status 2.

    What a terminal cannot show is printed as a question mark, and who reads the output may stop reading.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("promptgen").setLevel(logging.INFO)
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on, such as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except PromptGenError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
