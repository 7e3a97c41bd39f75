"""What tests of several folders share."""

import os

import pytest

from tests.web import LOCAL, web_server

# One thread per process, children included: tests run side by side. Set before torch and numpy are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Move the tests that start servers to where each of two processes begins, so that no process ends with them.

    Half of them come first, and half in the middle, which is where the second process takes its first test.
    """
    long = [item for item in items if item.get_closest_marker("server")]
    short = [item for item in items if not item.get_closest_marker("server")]
    half, middle = len(long) // 2, len(short) // 2
    items[:] = [*long[:half], *short[:middle], *long[half:], *short[middle:]]


@pytest.fixture
def web(monkeypatch):
    """A web server of this machine, which no proxy stands before."""
    monkeypatch.setenv("no_proxy", LOCAL)
    with web_server() as running:
        yield running
