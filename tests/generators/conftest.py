"""How a file of weights is refused."""

from contextlib import contextmanager

import pytest

from promptgen.errors import ModelFileError


@pytest.fixture
def refused(capsys):
    """A block in which a file must be refused in one line that matches, without anything in it being run."""

    @contextmanager
    def block(match):
        with pytest.raises(ModelFileError, match=match) as error:
            yield
        assert "\n" not in str(error.value)
        assert capsys.readouterr().out == ""

    return block
