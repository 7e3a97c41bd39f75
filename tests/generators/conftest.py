"""How a file of weights is refused, and saved tiny pipelines."""

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


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folder of a tiny pipeline and the pipeline itself; equal requests share it."""
    from safetensors.torch import save_file

    from tests.generators import tiny_pipelines as tiny  # which needs diffusers

    known = {}

    def save(family, name="", **options):
        if (family, name) not in known:
            folder = tmp_path_factory.mktemp(family)
            pipeline = tiny.build(family, **options)
            pipeline.save_pretrained(folder)
            save_file(tiny.embeddings(family), folder / "prompt.safetensors")
            known[family, name] = folder, pipeline
        return known[family, name]

    return save
