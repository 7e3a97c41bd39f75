"""Run a command until it ends or the process that started it does, even by SIGKILL: ``python -m pipelines.guard``.

The parent process holds the other end of the standard input. The end of that input means that the parent is gone, since
a dead process cannot keep a pipe open.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

STOP_SECONDS = 10.0


def guard(command: list[str]) -> int:
    """Run a command, and return its exit status; end it, and all that it has started, at the end of the input."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    ended = threading.Event()
    watch = threading.Thread(target=_end_with_input, args=(process, ended), daemon=True)
    watch.start()
    status = process.wait()
    if ended.is_set():
        watch.join()
    return status


def _end_with_input(process: subprocess.Popen[bytes], ended: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    ended.set()
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    if os.getpgid(0) == os.getpid():  # a session of its own: whatever is left in it was started by the command
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
