"""What tests of hostile files share: a small architecture, a canary, and where the file is."""

import json

import hostile
import pytest

from promptgen.networks.torchvision_ops import import_open_clip


@pytest.fixture(scope="session", autouse=True)
def tiny_clip(tmp_path_factory):
    """Make a small architecture known to open_clip, so that its loader has something quick to build."""
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
    words = {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    path = tmp_path_factory.mktemp("configs") / "tiny-hostile.json"
    path.write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": words}))
    import_open_clip().add_model_config(path)


@pytest.fixture
def canary(tmp_path):
    """A file that exists only if a command has run."""
    take_back = hostile.extension()
    yield tmp_path / "canary"
    take_back()


@pytest.fixture
def path(tmp_path):
    """Where the file is; what is written there is not left behind."""
    path = tmp_path / "weights.pt"
    yield path
    if path.is_file():
        path.unlink()
