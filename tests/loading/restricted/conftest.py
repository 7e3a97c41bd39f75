"""Reading bytes as a restricted pickle, and how that is refused."""

import pytest

from promptgen.errors import ModelFileError
from promptgen.loading.restricted import read_pickle

REFUSED = "expected a pickle of tensors and known classes; fetch it again"


@pytest.fixture
def read(tmp_path):
    def run(content, classes=()):
        path = tmp_path / "some.pkl"
        path.write_bytes(content)
        return read_pickle(path, classes)

    return run


@pytest.fixture
def refused(read):
    """Return the message of the error that reading some bytes ends in."""

    def run(content, classes=()):
        with pytest.raises(ModelFileError, match=rf"some\.pkl: {REFUSED}") as error:
            read(content, classes)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1000
        return str(error.value)

    return run
