"""What tests of several folders share."""

import os

import pytest

from tests.web import LOCAL, web_server

# One thread per process, children included: tests run side by side. Set before torch and numpy are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def web(monkeypatch):
    """A web server of this machine, which no proxy stands before."""
    monkeypatch.setenv("no_proxy", LOCAL)
    with web_server() as running:
        yield running
