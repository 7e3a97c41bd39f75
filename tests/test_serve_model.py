"""A registered sampler behind an address: requests over HTTP, as curl would send them."""

from __future__ import annotations

import base64
import io
import urllib.error

import pytest
from PIL import Image

from pipelines.serve_model import model_server, run
from promptgen.errors import ConfigError
from tests import tiny
from tests.faults import unused_port
from tests.measure_serving import ask, load, save_model

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the folder of a saved model: a flow on the world's generator, and that folder's project."""
    root = tmp_path_factory.mktemp("project")
    return save_model(root), root


@pytest.fixture(scope="module")
def address(model):
    folder, root = model
    server = model_server(str(folder), unused_port(), 1, root)
    with server.running(root / "server.log"):
        yield server.url


def picture(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_seeds_and_sizes(address):
    plain, small, again = ask(address, {"seed": 1}, {"seed": 1, "size": 20}, {"seed": 1})
    assert plain == again
    assert picture(plain).size == (64, 64)
    assert picture(small).size == (20, 20)
    assert ask(address, {"seed": 2}) != [plain]


@pytest.mark.parametrize(
    "row", [1, {}, {"size": 8}, {"seed": 1, "size": 0}, {"seed": 1, "condition": {"yaw": 0.1}}, {"seed": 1, "sizes": 8}]
)
def test_a_request_that_is_none_is_refused_and_the_next_one_answered(address, row):
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(address, row)
    with refused.value as answer:
        assert answer.code == 400
    assert len(ask(address, {"seed": 1})) == 1


def test_many_clients_at_once(address):
    expected = ask(address, *({"seed": seed} for seed in range(8)))
    pictures, latencies, _ = load(address, requests=160, clients=8)
    assert pictures == [expected[number % 8] for number in range(160)]
    assert max(latencies) < 30


def test_without_a_registered_model_one_must_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = tiny.params()
    path = tiny.write_params(tmp_path, {**params, "tracking": {**params["tracking"], "registered_model": None}})
    with pytest.raises(ConfigError, match="--model"):
        run(str(path), None, unused_port(), 1)
