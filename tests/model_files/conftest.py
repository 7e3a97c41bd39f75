"""A project without weight files: its folder of models, its cards, and where files come from."""

from __future__ import annotations

import pytest
import yaml

from tests.model_files.made_up_cards import CONTENT


@pytest.fixture
def models(tmp_path):
    """The models folder of a project whose folder has nothing in it yet."""
    return tmp_path / "project" / "models"


@pytest.fixture
def cards(models):
    """A function that writes the user's own cards."""
    models.parent.mkdir()
    return lambda **cards: (models.parent / "cards.yaml").write_text(yaml.safe_dump(cards))


@pytest.fixture
def source(tmp_path):
    """A file with CONTENT."""
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path
