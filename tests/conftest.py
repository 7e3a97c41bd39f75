"""What tests of several folders share."""

import os

import pytest

from tests.web import LOCAL, web_server

# One thread per process, children included: tests run side by side. Set before torch and numpy are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Move the tests that start servers to where each of two processes begins, so that no process ends with them.

    Those of one file, which share a server, come first, and all others in the middle: the second process begins there.
    """
    servers = [item for item in items if item.get_closest_marker("server")]
    others = [item for item in items if not item.get_closest_marker("server")]
    first = [item for item in servers if item.path == servers[0].path]
    middle = (len(others) + len(servers)) // 2 - len(first)
    items[:] = [*first, *others[:middle], *(item for item in servers if item not in first), *others[middle:]]


@pytest.fixture
def web(monkeypatch):
    """A web server of this machine, which no proxy stands before."""
    monkeypatch.setenv("no_proxy", LOCAL)
    with web_server() as running:
        yield running


@pytest.fixture
def few_steps(monkeypatch):
    """Let trainings on evaluations take few steps: for tests of what they count or keep, not of what they learn."""
    from promptgen.evaluations import descent, landing, surrogate

    monkeypatch.setattr(descent, "BLOCK_STEPS", 10)
    monkeypatch.setattr(descent, "POOL_SIZE", 1024)
    monkeypatch.setattr(landing, "LARGE", 4096)
    monkeypatch.setitem(surrogate.fit_surrogate.__kwdefaults__, "steps", 20)
