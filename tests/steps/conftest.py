"""What tests of the steps share."""

from __future__ import annotations

import pytest

from tests.steps.projects import project_in, run_pass


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """A project of which the passes 0 to 2 have been run."""
    project = project_in(tmp_path_factory.mktemp("project"))
    for number in range(3):
        run_pass(project, number)
    return project
