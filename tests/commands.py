"""Commands as tests type them."""

from __future__ import annotations

from promptgen.command_line import main


def typed(*words: object) -> int:
    """Run `promptgen` with these words in this process; return the exit status."""
    try:
        return main(list(map(str, words)))
    except SystemExit as end:  # after help, or wrong arguments
        return int(end.code or 0)
