"""A registered sampler behind an address: requests over HTTP, as curl would send them."""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from pipelines.serve_model import model_server, run
from promptgen import world
from promptgen.errors import ConfigError
from promptgen.flows.chain_file import save_chain
from promptgen.flows.flow import Flow, FlowConfig
from steps.recording.registry import save
from tests import tiny
from tests.faults import unused_port

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the folder of a saved model: a flow on the world's generator, and that folder's project."""
    root = tmp_path_factory.mktemp("project")
    checkpoint = root / "chain.safetensors"
    spec = {"type": "world", "model": "world-generator", "truncation": 1.0}
    save_chain(checkpoint, [Flow(64, FlowConfig(blocks=1, hidden=8))], spec, {})
    weights = Path(world.__file__).with_name("weights") / "world-generator.safetensors"
    placed = root / "models" / "world-generator" / weights.name
    placed.parent.mkdir(parents=True)
    placed.write_bytes(weights.read_bytes())
    save(root / "saved", checkpoint, [placed], root)
    return root / "saved", root


@pytest.fixture(scope="module")
def address(model):
    folder, root = model
    server = model_server(str(folder), unused_port(), 1, root)
    with server.running(root / "server.log"):
        yield server.url


def ask(address, *rows):
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps({"inputs": rows}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


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
    started = time.monotonic()
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda number: ask(address, {"seed": number % 8}), range(160)))
    assert answers == [[expected[number % 8]] for number in range(160)]
    print(f"{160 / (time.monotonic() - started):.1f} requests a second")


def test_without_a_registered_model_one_must_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = tiny.params()
    path = tiny.write_params(tmp_path, {**params, "tracking": {**params["tracking"], "registered_model": None}})
    with pytest.raises(ConfigError, match="--model"):
        run(str(path), None, unused_port(), 1)
