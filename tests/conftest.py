"""What tests of several folders share."""

import pytest

from tests.web import LOCAL, web_server


@pytest.fixture
def web(monkeypatch):
    """A web server of this machine, which no proxy stands before."""
    monkeypatch.setenv("no_proxy", LOCAL)
    with web_server() as running:
        yield running
