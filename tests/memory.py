"""The peak memory of this process."""

from __future__ import annotations

import re
from pathlib import Path


def peak_memory() -> float:
    """Return the most memory that this process has held so far, MiB.

    `ru_maxrss` would not do: a child starts with the peak of the process that has started it.
    """
    match = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1]) / 1024
