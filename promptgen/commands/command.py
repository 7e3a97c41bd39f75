"""A command of this project: how it reads its arguments, and how it ends. Nothing slow to import is needed here."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from promptgen.errors import PromptGenError

WRONG = 2
"""Exit status of wrong arguments, and of all errors of this project."""

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


class Parser(argparse.ArgumentParser):
    """Reads the arguments of a command. A wrong one ends the process with one line on stderr and status 2.

    Args:
        command: the words after ``promptgen``.
        about: what the command does.
        example: command lines to show, one a line.
    """

    def __init__(self, command: str, about: str, example: str = "") -> None:
        epilog = "example:\n" + "\n".join(f"  {line}" for line in example.splitlines()) if example else None
        super().__init__(
            prog=f"promptgen {command}",
            description=about,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """End the process."""
        print(f"error: {message}; see `{self.prog} --help`", file=sys.stderr)
        sys.exit(WRONG)


def whole_number(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """Return a type for arguments: a whole number in a range, both ends included.

    Example:
        >>> whole_number(1, 65535)("4200")
        4200
    """
    wanted = f"a whole number from {lowest}" + ("" if highest is None else f" to {highest}")

    def read(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = None
        if number is None or number < lowest or (highest is not None and number > highest):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {word!r}")
        return number

    return read


def run_command(work: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    """Run a command and return its exit status; an error of this project is one line on stderr.

    Characters that the terminal cannot show are printed as question marks. A reader of the output may stop early.

    Args:
        work: reads its arguments and does the work; returns an exit status, or None for 0.
        arguments: the arguments.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("promptgen").setLevel(logging.INFO)
    try:
        status = work(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on, such as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PromptGenError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED
    return status or 0
