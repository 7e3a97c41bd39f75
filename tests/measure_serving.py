"""Requests per second and latency of a served model: python -m tests.measure_serving [REQUESTS [CLIENTS]].

It serves a flow on the world's generator, as `promptgen serve-model` does, and asks for one picture per request. The
figures in docs/scheduling.md come from it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipelines.serve_model import model_server
from promptgen import world
from promptgen.flows.chain_file import save_chain
from promptgen.flows.flow import Flow, FlowConfig
from steps.serving.registry import save
from tests.faults import unused_port

WORKERS = 1


def save_model(root: Path) -> Path:
    """Save a flow on the world's generator as a model, in a project in `root`, and return its folder."""
    checkpoint = root / "chain.safetensors"
    spec = {"type": "world", "model": "world-generator", "truncation": 1.0}
    save_chain(checkpoint, [Flow(64, FlowConfig(blocks=1, hidden=8))], spec, {})
    weights = Path(world.__file__).with_name("weights") / "world-generator.safetensors"
    placed = root / "models" / "world-generator" / weights.name
    placed.parent.mkdir(parents=True)
    placed.write_bytes(weights.read_bytes())
    save(root / "saved", checkpoint, [placed], root)
    return root / "saved"


def ask(address: str, *rows: object) -> list[str]:
    """Return the pictures, PNG files in base64, that a server makes of the rows of one request."""
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps({"inputs": rows}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


def load(address: str, requests: int, clients: int, seeds: int = 8) -> tuple[list[str], list[float], float]:
    """Ask for one picture per request, by clients at once; the seeds repeat.

    Returns:
        The pictures in order, the latency of each request, and the time of all, in seconds.
    """

    def timed(number: int) -> tuple[str, float]:
        started = time.perf_counter()
        (picture,) = ask(address, {"seed": number % seeds})
        return picture, time.perf_counter() - started

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(timed, range(requests)))
    pictures, latencies = zip(*answers, strict=True)
    return list(pictures), list(latencies), time.perf_counter() - started


def main(requests: int = 1000, clients: int = 8) -> None:
    """Print what a server takes for so many requests; an answer that differs from the first ends with an error."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        server = model_server(str(save_model(root)), unused_port(), WORKERS, root)
        with server.running(root / "server.log"):
            expected = ask(server.url, *({"seed": seed} for seed in range(8)))
            pictures, latencies, seconds = load(server.url, requests, clients)
    wrong = sum(picture != expected[number % 8] for number, picture in enumerate(pictures))
    median, tail = 1000 * np.quantile(latencies, [0.5, 0.99])
    print(f"{requests} requests by {clients} clients, {wrong} wrong: {requests / seconds:.1f} a second")
    print(f"latency: median {median:.0f} ms, 99th percentile {tail:.0f} ms, longest {1000 * max(latencies):.0f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
